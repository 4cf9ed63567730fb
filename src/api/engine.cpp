#include "fathom/engine.h"

#include <utility>

#include "api/driver.h"
#include "api/internals.h"
#include "api/request.h"

namespace fathom {

struct FATHOM_HIDDEN Engine::State final : Driver {
  using Driver::Driver;
};

struct FATHOM_HIDDEN Stream::State {
  std::shared_ptr<Driver> driver;
  Driver::Shared ticket;
};

const char* name(Finish finish) {
  static constexpr const char* kNames[] = {"length", "stop_id", "stop_string", "context_full", "cancelled", "deadline"};
  return kNames[static_cast<size_t>(finish)];
}

Stream::Stream(std::unique_ptr<State> state) : state_(std::move(state)) {}
Stream::Stream(Stream&&) noexcept = default;

Stream& Stream::operator=(Stream&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

Stream::~Stream() {
  if (state_) cancel();
}

std::optional<Event> Stream::next() { return state_->driver->next(*state_->ticket); }
std::optional<Event> Stream::try_next() { return state_->driver->try_next(*state_->ticket); }
bool Stream::done() const { return state_->driver->done(*state_->ticket); }
std::vector<Text> Stream::wait() { return state_->driver->wait(*state_->ticket); }
void Stream::cancel() { state_->driver->cancel(state_->ticket); }

void Stream::set_dial(double dial) {
  at_border([&] { state_->driver->set_policy(state_->ticket, Internals::of(state_->driver->model()).policy(dial)); });
}

Engine::Engine(Model model, const EngineOptions& options)
    : state_(at_border([&] { return std::make_shared<State>(std::move(model), options); })) {}
Engine::Engine(Engine&&) noexcept = default;

Engine& Engine::operator=(Engine&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

Engine::~Engine() {
  if (state_) state_->close();
}

Stream Engine::submit(const Request& request) {
  return at_border([&] {
    auto state = std::make_unique<Stream::State>();
    state->ticket = state_->submit([&](double now) { return request_of(Internals::of(state_->model()), request, now); });
    state->driver = state_;
    return Stream(std::move(state));
  });
}

Text Engine::generate(const Request& request) {
  if (request.samples != 1)
    at_border([&] { throw UserError({"request", "samples", str(request.samples), "1", "Engine::submit returns more texts than one"}); });
  return submit(request).wait().front();
}

int64_t Engine::save(const std::string& path, const std::vector<TokenId>& ids, const std::vector<DialFrom>& dials) {
  return at_border([&] { return state_->save(path, ids, dials); });
}

KeptText Engine::load(const std::string& path) {
  return at_border([&] { return state_->load(path); });
}

bool Engine::step() { return state_->step(); }
void Engine::start() { state_->start(); }
void Engine::stop() { state_->stop(); }
EngineStats Engine::stats() const { return state_->stats(); }
const Model& Engine::model() const { return state_->model(); }
int Engine::threads() const { return state_->threads(); }
const char* Engine::instruction_set() const { return state_->instruction_set(); }

}  // namespace fathom
