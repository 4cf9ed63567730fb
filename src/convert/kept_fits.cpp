#include "convert/kept_fits.h"

#include <array>
#include <cstring>

#include "core/file.h"
#include "formats/safetensors.h"

namespace fathom::convert {
namespace {

constexpr const char* kNumbers = "numbers";
using Numbers = std::array<double, 5>;  // unexplained, bias, explained, miss, loss_increase

}  // namespace

std::string KeptFits::path(size_t unit) const { return join_path(folder_, str(pass_, "-", unit, ".safetensors")); }

std::optional<FittedUnit> KeptFits::find(size_t unit) const {
  if (folder_.empty() || !exists(path(unit))) return {};
  const formats::SafetensorsFile file(path(unit));
  const auto rows = [&](const char* name) { return file.find(name) ? file.at(name).to_f32() : std::vector<float>(); };
  const std::span<const std::byte> bytes = file.at(kNumbers).bytes;
  Numbers numbers;
  if (bytes.size() != sizeof numbers) throw UserError({path(unit), kNumbers, str(bytes.size(), " bytes"), str(sizeof numbers), "remove the file: it is computed anew"});
  std::memcpy(numbers.data(), bytes.data(), sizeof numbers);
  return FittedUnit{.light = {.down = rows("light.down"), .up = rows("light.up"), .unexplained = numbers[0]},
                    .router = {.weight = rows("router.weight"), .bias = static_cast<float>(numbers[1]), .explained = numbers[2]},
                    .miss = numbers[3],
                    .loss_increase = numbers[4],
                    .scores = rows("scores")};
}

void KeptFits::keep(size_t unit, const FittedUnit& fitted) const {
  if (folder_.empty()) return;
  const std::pair<const char*, const std::vector<float>*> all[] = {{"light.down", &fitted.light.down}, {"light.up", &fitted.light.up}, {"router.weight", &fitted.router.weight}, {"scores", &fitted.scores}};
  std::vector<formats::TensorEntry> entries = {{kNumbers, formats::Dtype::F64, {std::tuple_size_v<Numbers>}}};
  for (const auto& [name, values] : all)
    if (!values->empty()) entries.push_back({name, formats::Dtype::F32, {std::ssize(*values)}});
  formats::SafetensorsWriter file(path(unit), entries);
  const Numbers numbers = {fitted.light.unexplained, fitted.router.bias, fitted.router.explained, fitted.miss, fitted.loss_increase};
  file.append(std::as_bytes(std::span(numbers)));
  for (const auto& [name, values] : all)
    if (!values->empty()) file.append_f32(*values);
  file.commit();
}

}  // namespace fathom::convert
