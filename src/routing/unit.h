// What a decision is about: a whole block, or its attention or feed-forward part, and the paths that tokens may take there.
//
// The paths of a unit stand in order of cost: exit, skip, light, full. Between two neighbours lies a cut, which belongs to the
// dearer one: a token takes the dearest path whose cut its score reaches (for a rule of scores the cut is a threshold, for the
// random control and the teacher a share of tokens). A unit of one path has no cut and nothing to decide: it is static.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"

namespace fathom::routing {

// What a token does at a unit. The numbers are those of decisions, events and reports.
enum class Path : uint8_t {
  skip = 0,   // nothing: x' = x
  full = 1,   // the unit's own delta, times the gate
  light = 2,  // a low-rank map of the normed input in place of that delta, ungated
  exit = 3,   // is decided and not done: the cheapest other path here and at every later unit
};

enum class Part {
  block,      // attention and feed-forward by one decision
  attention,
  mlp,
};

extern const std::vector<std::pair<const char*, Path>> kPathNames;  // cheapest first
extern const std::vector<std::pair<const char*, Part>> kPartNames;

struct Paths {
  bool exit = false, skip = true, light = false, full = true;
  bool operator==(const Paths&) const = default;

  bool has(Path path) const;
  std::vector<Path> in_order() const;  // cheapest first
  // `full` and something beside it; or one path, which every token takes: skip or light.
  bool valid() const;
  // "skip,light,full", as flags and configurations have it. UserError names `where` and `field`; the order does not matter.
  static Paths parse(const std::string& text, const std::string& where, const std::string& field);
  std::string text() const;
};

struct RoutedUnit {
  int block = 0;              // index into the model's blocks
  double capacity = 1.0;      // share of tokens that run it in full, in (0, 1]; 0 in a static unit
  Part part = Part::block;
  Paths paths = {};
  int64_t light_rank = 0;     // r; 0 without a light path
  double light_capacity = 0;  // share of tokens that take light, where a cheaper path stands beside it
  double skip_capacity = 0;   // share of tokens that skip and may run later units, where exit stands beside it
  bool operator==(const RoutedUnit&) const = default;

  // One path for every token: no router, and none of the part's own weights.
  bool is_static() const { return !paths.full; }
  // What a token does that has exited: skip, or light where the unit has nothing cheaper.
  Path cheapest() const { return paths.light && !paths.skip ? Path::light : Path::skip; }
  size_t cuts() const { return static_cast<size_t>(paths.exit + paths.skip + paths.light + paths.full - 1); }
  // [cuts] share of tokens that take the cut's path or a dearer one, so falling.
  std::vector<double> capacities() const;
  // Whether `other` may follow in a list: of a later block, or the MLP of the block whose attention this is.
  bool before(const RoutedUnit& other) const {
    return block < other.block || (block == other.block && part == Part::attention && other.part == Part::mlp);
  }
  bool covers(Part half) const { return part == Part::block || part == half; }
  // Whether tokens skip a whole block or run it, and nothing else.
  bool is_plain() const { return part == Part::block && paths == Paths{} && light_rank == 0; }
  std::string name() const;     // "block 3", "attention of block 3"
  std::string label() const;    // "3", "3 attention": of tables
  int64_t random_key() const;   // of the random control's hash; the block's index for a whole block and for attention

  // One of "units" in the "fathom" object. UserError names the key.
  static RoutedUnit from_json(const Fields& fields, int64_t n_blocks);
  Json to_json() const;
  // The keys that all units share when "routed_blocks" names them: paths, light_rank, light_capacity, skip_capacity.
  void read_paths(const Fields& fields);
  // What is wrong with it: the field's name and what is expected there; two empty strings when nothing is.
  std::pair<std::string, std::string> problem() const;
};

}  // namespace fathom::routing
