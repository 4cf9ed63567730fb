#include "infer/guessing.h"

#include <algorithm>
#include <numeric>

namespace fathom::infer {
namespace {

constexpr double kFade = 0.95;      // what is known of a kind with every guess more, and
constexpr double kFadeIdle = 0.99;  // with every token that is written without one
constexpr double kAllowed = 0.5, kAllowedShare = 0.0075;  // tokens that guesses may lose, and of every token written

// How often a text of SmolLM2 (greedy, chat, prose and code) went on as it did behind the same 1, 2, … 8 and more tokens.
constexpr double kUsual[] = {0.25, 0.5, 0.65, 0.7, 0.7, 0.85, 0.85, 0.95};
constexpr double kSureFrom[] = {0, 0.5, 0.75, 0.9}, kUsualSure[] = {0.4, 0.6, 0.8, 0.95};  // of a draft, by its probability
constexpr double kUsualDraft = 0.8;

}  // namespace

void Chance::saw(bool right) {
  right_ = right_ * kFade + right;
  made_ = made_ * kFade + 1;
}

void Chance::fade() {
  right_ *= kFadeIdle;
  made_ *= kFadeIdle;
}

Guessing::Guessing(const Speculation& how) : how_(how), draft_chance_(kUsualDraft), draft_cost_(how.draft_cost) {
  for (const double usual : kUsual) chances_.emplace_back(usual);
  for (const double usual : kUsualSure) chances_.emplace_back(usual);
}

// In tokens: what the step's texts would have written in that time.
double Guessing::check(int64_t guesses, const StepAround& step, const StepTimes& times, double seconds) {
  const double without = times.of(step.rows);
  return (times.took(seconds, times.of(step.rows + guesses)) - without) / without * static_cast<double>(step.texts);
}

// Alone, it takes the draft's own time; with others, the text waits a step for it.
double Guessing::draft_step(const StepAround& step, const StepTimes& times) const {
  return step.rows == 1 ? draft_cost_ : 1;
}

double Guessing::allowed() const { return kAllowed + kAllowedShare * static_cast<double>(written_) + balance_; }

int64_t Guessing::best_length(int64_t most, const StepAround& step, const std::function<double(int64_t)>& chance, const std::function<double(int64_t)>& cost) const {
  if (how_.always) return most;
  const auto texts = static_cast<double>(step.texts);
  double all = 1, expected = 0, best = 1;
  int64_t length = 0;
  for (int64_t n = 1; n <= most && cost(n) <= allowed(); ++n) {
    expected += all *= chance(n);
    const double rate = (texts + expected) / (texts + cost(n));  // tokens, over what would be written in that time without
    if (rate > best) best = rate, length = n;
  }
  return length;
}

Guessing::Plan Guessing::repetition(std::span<const int32_t> tokens, int64_t most, const StepAround& step, const StepTimes& times) const {
  Plan out;
  const int64_t longest = std::max<int64_t>(kLongest, how_.same);
  const auto same_as = [&](int64_t end) {  // tokens before `end` that are those at the end, `longest` at most
    int64_t n = 0;
    while (n < longest && n < end && tokens[static_cast<size_t>(end - 1 - n)] == tokens[tokens.size() - 1 - static_cast<size_t>(n)]) ++n;
    return n;
  };
  // The longest such place, the latest of those; beyond the end it goes on with itself.
  int64_t place = 0, same = how_.same - 1;
  for (int64_t end = std::ssize(tokens) - 1; end > 0 && same < longest; --end)
    if (const int64_t n = same_as(end); n > same) place = end, same = n;
  if (place == 0) return out;
  const auto kind = [&](int64_t n) { return static_cast<uint8_t>(std::min<int64_t>(same + n - 1, kLongest) - 1); };
  const int64_t length = best_length(most, step, [&](int64_t n) { return chance(kind(n)); }, [&](int64_t n) { return check(n, step, times); });
  for (auto at = static_cast<size_t>(place); std::ssize(out.ids) < length; ++at) {
    out.ids.push_back(at < tokens.size() ? tokens[at] : out.ids[at - tokens.size()]);
    out.kinds.push_back(kind(std::ssize(out.ids)));
  }
  return out;
}

Guessing::Plan Guessing::plan(std::span<const int32_t> tokens, int64_t most, const StepAround& step, const StepTimes& times) const {
  most = std::min(most, how_.most);
  if (most < 1) return {};
  if (how_.repeats)
    if (Plan out = repetition(tokens, most, step, times); !out.ids.empty()) return out;
  Plan out;
  if (!how_.draft) return out;
  const auto cost = [&](int64_t n) { return static_cast<double>(n) * draft_step(step, times) + check(n, step, times); };
  out.drafts = std::max<int64_t>(0, best_length(most, step, [&](int64_t) { return draft_chance_.now(); }, cost));
  // How far it goes follows from what it guesses; how much it may lose does not.
  while (out.drafts > 0 && out.drafts < most && cost(out.drafts + 1) <= allowed()) ++out.drafts;
  return out;
}

uint8_t Guessing::kind_of(double probability) {
  int sure = kSure - 1;
  while (sure > 0 && probability < kSureFrom[sure]) --sure;
  return static_cast<uint8_t>(kLongest + sure);
}

bool Guessing::another(std::span<const uint8_t> kinds, const StepAround& step, const StepTimes& times) const {
  if (how_.always) return true;
  const double all = std::accumulate(kinds.begin(), kinds.end(), 1.0, [&](double p, uint8_t kind) { return p * chance(kind); });
  const auto n = std::ssize(kinds);
  return all * draft_chance_.now() > draft_step(step, times) + check(n + 1, step, times) - check(n, step, times);
}

void Guessing::drafted(const StepAround& step, const StepTimes& times, double seconds) {
  const double cost = step.rows == 1 ? times.took(seconds, draft_cost_ * times.of(1)) / times.of(1) : draft_step(step, times);
  balance_ -= cost;
  if (step.rows == 1) draft_cost_ += (cost - draft_cost_) / 8;
}

void Guessing::checked(std::span<const uint8_t> kinds, int64_t right, const StepAround& step, const StepTimes& times, double seconds) {
  balance_ += static_cast<double>(right) - check(std::ssize(kinds), step, times, seconds);
  for (int64_t n = 0; n < std::min(right + 1, std::ssize(kinds)); ++n) {
    const uint8_t kind = kinds[static_cast<size_t>(n)];
    chances_[kind].saw(n < right);
    if (kind >= kLongest) draft_chance_.saw(n < right);
  }
}

void Guessing::fade() {
  for (Chance& c : chances_) c.fade();
  draft_chance_.fade();
}

}  // namespace fathom::infer
