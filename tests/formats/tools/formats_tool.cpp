// The formats room behind a command line, for the Python tests that compare it with other implementations.
//   formats_tool safetensors-copy IN OUT          every tensor's bytes, in the order of the file
//   formats_tool safetensors-convert IN OUT DTYPE float tensors through f32 into DTYPE
//   formats_tool tensorboard FOLDER START         scalars, a histogram and a text from step START
#include <cmath>
#include <iostream>

#include "core/error.h"
#include "core/random.h"
#include "formats/safetensors.h"
#include "formats/tensorboard.h"

using namespace fathom;
using namespace fathom::formats;

namespace {

void copy(const std::string& in, const std::string& out, std::optional<Dtype> to) {
  const SafetensorsSet set(in);
  const auto is_float = [](Dtype d) { return d == Dtype::F64 || d == Dtype::F32 || d == Dtype::F16 || d == Dtype::BF16; };
  std::vector<TensorEntry> entries;
  for (const TensorView* t : set.tensors()) entries.push_back({t->name, to && is_float(t->dtype) ? *to : t->dtype, t->shape});
  SafetensorsWriter writer(out, entries, set.files()[0]->metadata());
  for (const TensorView* t : set.tensors()) {
    if (to && is_float(t->dtype)) writer.append_f32(t->to_f32());
    else writer.append(t->bytes);
  }
  writer.commit();
}

void tensorboard(const std::string& folder, int64_t start) {
  EventWriter w(folder, start);
  for (int64_t step = start; step < start + 10; ++step) {
    w.set_time(1e9 + static_cast<double>(step));
    w.scalar("loss/train", step, 10.0 / static_cast<double>(step + 1));
    w.scalar("größe", step, step == start + 3 ? NAN : static_cast<double>(step));
  }
  Random random(1);
  std::vector<float> normal(20000);
  for (float& v : normal) v = static_cast<float>(random.normal());
  normal.push_back(NAN);
  w.histogram("router/score", start, normal);
  w.histogram("nothing", start, {});
  w.text("config", start, "a **bold** word\n\n<b>& é</b>");
  w.flush();
  std::cout << w.path() << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> a(argv + 1, argv + argc);
  try {
    if (a.size() == 3 && a[0] == "safetensors-copy") copy(a[1], a[2], {});
    else if (a.size() == 4 && a[0] == "safetensors-convert") copy(a[1], a[2], dtype_from_name(a[3]));
    else if (a.size() == 3 && a[0] == "tensorboard") tensorboard(a[1], std::stoll(a[2]));
    else return std::cerr << "see the head of formats_tool.cpp\n", 2;
  } catch (const UserError& e) {
    std::cerr << e.what() << '\n';
    return 1;
  }
}
