// What a fit has found, unit by unit, in files of a folder: FOLDER/PASS-UNIT.safetensors.
#pragma once
#include <optional>
#include <string>

#include "convert/fit.h"

namespace fathom::convert {

class KeptFits {
 public:
  // `pass` tells the fits of one folder apart. With folder "" nothing is kept.
  KeptFits(std::string folder, std::string pass) : folder_(std::move(folder)), pass_(std::move(pass)) {}
  std::optional<FittedUnit> find(size_t unit) const;  // nothing where it was not kept; UserError: a damaged file
  void keep(size_t unit, const FittedUnit& fitted) const;

 private:
  std::string path(size_t unit) const;
  std::string folder_, pass_;
};

}  // namespace fathom::convert
