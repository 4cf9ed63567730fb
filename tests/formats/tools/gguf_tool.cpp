// The GGUF reader and the types of ggml behind a command line, for the Python tests that compare them with the gguf package.
//   gguf_tool list FILE                     metadata and tensors as JSON; numbers as text, as the reader prints them
//   gguf_tool dequantize FILE OUT           every tensor as f32, one after the other in the order of `list`
//   gguf_tool unpack FILE OUT               the same by the formula of UnpackedBlocks (plain types by dequantize)
//   gguf_tool quantize TYPE IN OUT          f32 numbers of the file IN to blocks
#include <cstring>
#include <iostream>

#include "core/error.h"
#include "core/json.h"
#include "formats/gguf.h"

using namespace fathom;
using namespace fathom::formats;

namespace {

void list(const std::string& path) {
  const GgufFile file(path);
  Json out{{"version", file.version()}, {"alignment", file.alignment()}, {"metadata", Json::object()}, {"tensors", Json::array()}};
  for (const GgufValue& v : file.metadata().values()) {
    Json elements = Json::array();
    for (int64_t i = 0; i < v.count; ++i) {
      if (v.type == GgufType::string) elements.push_back(std::string(v.strings[static_cast<size_t>(i)]));
      else if (v.type == GgufType::boolean) elements.push_back(v.bytes[static_cast<size_t>(i)] == std::byte{1});
      else if (const auto n = v.integer(i)) elements.push_back(*n);
      else elements.push_back(*v.number(i));
    }
    out["metadata"][std::string(v.key)] = {{"type", gguf_type_name(v.type)}, {"array", v.is_array}, {"elements", elements}};
  }
  for (const GgufTensor& t : file.tensors()) out["tensors"].push_back({{"name", t.name}, {"type", ggml_type_name(t.type)}, {"shape", t.shape}, {"bytes", t.bytes.size()}});
  std::cout << out.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
}

void write_values(AtomicFile& file, const std::vector<float>& values) { file.write(values.data(), values.size() * sizeof(float)); }

void dequantize_all(const std::string& path, const std::string& out, bool by_formula) {
  const GgufFile file(path);
  AtomicFile values(out);
  for (const GgufTensor& t : file.tensors()) {
    std::vector<float> x = t.to_f32();
    if (by_formula && is_quantized(t.type)) {
      UnpackedBlocks u;
      unpack(t.type, t.bytes, u);
      for (size_t i = 0; i < x.size(); ++i) {
        const size_t g = i / static_cast<size_t>(u.layout.group);
        x[i] = u.scale(g) * static_cast<float>(u.codes[i] - u.layout.offset);
        if (u.layout.has_minimum) x[i] -= u.minimum(g);
      }
    }
    write_values(values, x);
  }
  values.commit();
}

void quantize_file(GgmlType type, const std::string& in, const std::string& out) {
  const MappedFile map(in);
  std::vector<float> x(map.bytes().size() / sizeof(float));
  if (!x.empty()) std::memcpy(x.data(), map.bytes().data(), x.size() * sizeof(float));
  std::vector<std::byte> blocks(static_cast<size_t>(ggml_bytes(type, static_cast<int64_t>(x.size()))));
  quantize(type, x, blocks.data());
  atomic_write(out, {reinterpret_cast<const char*>(blocks.data()), blocks.size()});
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> a(argv + 1, argv + argc);
  try {
    if (a.size() == 2 && a[0] == "list") list(a[1]);
    else if (a.size() == 3 && (a[0] == "dequantize" || a[0] == "unpack")) dequantize_all(a[1], a[2], a[0] == "unpack");
    else if (a.size() == 4 && a[0] == "quantize" && ggml_type_from_name(a[1])) quantize_file(*ggml_type_from_name(a[1]), a[2], a[3]);
    else return std::cerr << "see the head of gguf_tool.cpp\n", 2;
  } catch (const UserError& e) {
    std::cerr << e.what() << '\n';
    return 1;
  }
}
