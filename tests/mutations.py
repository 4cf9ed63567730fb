"""Breaks the code on purpose, one place at a time, and checks that a test fails: what proves that the proofs are awake.

  .venv/bin/python tests/mutations.py [NAME…] [--folder build/mutations]

Works in a copy of the tracked files with a build of its own, of what the chosen mutations' tests need (of all, the first takes as long
as a whole build; then a mutation costs its file and the link). Each must compile, fail its test as broken, and pass it again as written. Not part of ./test: it is
for whoever changes a proof. Results of the last whole run stand in docs/proofs.md.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent

# name, what it proves, file, text as written, text as broken, program or Python file, filter of cases
MUTATIONS = [
    ("law-chunk-forced", "prefill in chunks = whole", "src/infer/decide.cpp", "return rows.first_position + t < routing.forced_positions;",
     "return t < routing.forced_positions;", "test_infer", "Law.*"),
    ("law-decode-slot", "cached decode = recompute", "src/infer/kv_cache.cpp", "  return table.length++;",
     "  return table.length % 16 == 15 ? (table.length++, table.length - 2) : table.length++;", "test_infer", "Law.CachedDecode*"),
    ("law-batch", "alone = in any batch", "src/infer/decide.cpp", "std::span(step.score).subspan(first, tokens), .exited",
     "std::span(step.score).subspan(0, tokens), .exited", "test_infer", "Law.ASequenceAlone*"),
    ("law-batch-bits", "no row's bits depend on its neighbours", "src/kernels/cpu/attention.inl",
     "    if (begin < end) weigh_columns", "    if (begin + 1 < end) weigh_columns", "test_infer", "Law.*"),
    ("law-dense", "capacity 1 and gate 1 = dense", "src/kernels/reference/loops.inl", "y[i] = fma(g, a[i], x[i]);",
     "y[i] = fma(g, a[i], 1.0000002f * x[i]);", "test_infer", "Law.CapacityOne*"),
    ("law-top-k-per-item", "the teacher's view is per sequence", "src/infer/decide.cpp",
     "routing::top_k(selecting, routing::selected_count(policy.capacity[cut], tokens), routing.forced_positions)",
     "routing::top_k(selecting, routing::selected_count(policy.capacity[cut], tokens + 1), routing.forced_positions)", "test_agree", "*"),
    ("law-nn-causal", "nn: full sequence = prefix by prefix", "src/nn/pass.cpp", "          a->hi[static_cast<size_t>(i)] = static_cast<int32_t>(i) + 1;\n        }",
     "          a->hi[static_cast<size_t>(i)] = static_cast<int32_t>(a->q_begin[s + 1]);\n        }", "test_nn", "Law.*"),
    ("law-nn-dense", "nn: capacity 1 and gate 1 = dense", "src/nn/kernels_rows_impl.h", "to[c] = (to[c] + gi * static_cast<P>(get(ai[c]))) + gi * static_cast<P>(get(mi[c]));",
     "to[c] = to[c] + gi * (static_cast<P>(get(ai[c])) + static_cast<P>(get(mi[c])));", "test_nn", "Law.*"),
    ("packing", "packed documents do not see each other", "src/nn/pass.cpp", "    a->lo[i] = static_cast<int32_t>(i) - rows_.position[i];",
     "    a->lo[i] = static_cast<int32_t>(i / static_cast<size_t>(rows_.tokens) * static_cast<size_t>(rows_.tokens));", "test_nn", "Packing.*"),
    ("agree-positions", "nn and infer agree on logits", "src/infer/block.cpp", "finish_heads(step, key, G, w.k_bias, w.k_norm, row.position);",
     "finish_heads(step, key, G, w.k_bias, w.k_norm, step.slots[i]);", "test_agree", "*"),
    ("agree-predictor", "nn and infer agree on decisions", "src/infer/decide.cpp", "step.kernels.dot(unit.fc2.data(), row, P) + unit.fc2_bias;",
     "step.kernels.dot(unit.fc2.data(), row, P);", "test_agree", "*"),
    ("agree-gate", "nn and infer agree on gates", "src/infer/decide.cpp", "(1.0f - 2.0f / (1.0f + e))", "(1.0f - 2.0f / (1.001f + e))", "test_agree", "*"),
    ("oracle-gradient", "all gradients equal the plain PyTorch model's", "src/nn/kernels_rows_impl.h", "const P q = t.rstd ? -s * t.rstd[i]",
     "const P q = t.rstd ? s * t.rstd[i]", "tests/oracle/test_nn.py", "logits_losses"),
    ("oracle-gate", "logits equal the plain PyTorch model's", "src/nn/pass.cpp", "1 + routing.gate_scale * at::tanh(r)",
     "1 + at::tanh(routing.gate_scale * r)", "tests/oracle/test_nn.py", "logits_losses"),
    ("oracle-steps", "ten training losses equal the plain PyTorch model's", "src/train/optimizer.cpp", "config_.beta1, config_.beta2,\n",
     "config_.beta2, config_.beta1,\n", "tests/oracle/test_nn.py", "ten_training"),
    ("oracle-dense", "dense models equal transformers", "src/nn/kernels_rows_impl.h", "put(to + f, g * silu_sigmoid(g) * static_cast<P>(get(up[f])));",
     "put(to + f, g * silu_sigmoid(P(1.01) * g) * static_cast<P>(get(up[f])));", "tests/oracle/test_nn.py", "dense_model_equals"),
    ("gradient-swiglu", "finite differences: SwiGLU", "src/nn/kernels_rows_impl.h", "put(dgate + f, dy * u * (s + silu * (P(1) - s)));",
     "put(dgate + f, dy * u * (s + silu * (P(1) - s * s)));", "test_nn", "Gradients.SwigluLinear"),
    ("gradient-norm", "finite differences: RMSNorm", "src/nn/kernels_rows_impl.h", "- n * mean);\n        put(di + c, n * norm[c]);\n      }\n    } else {",
     "- n * mean / 2);\n        put(di + c, n * norm[c]);\n      }\n    } else {", "test_nn", "Gradients.*"),
    ("gradient-loss", "finite differences: head and loss", "src/nn/kernels_rows_impl.h", "* factor - scale;", "* factor - scale / 2;", "test_nn", "Gradients.HeadLoss"),
    ("gradient-score", "finite differences: router scores", "src/nn/kernels_rows_impl.h", "dw[c] += s * h[c];", "dw[c] += 1.01 * s * h[c];", "test_nn", "Gradients.RouterScore"),
    ("gradient-attention-q", "finite differences: attention, queries", "src/nn/kernels_attention_impl.h", "t.cosine, t.sine, scale, t.dq + h", "t.cosine, t.sine, P(1), t.dq + h",
     "test_nn", "Gradients.Attention*"),
    ("gradient-attention-kv", "finite differences: attention, keys and values of many tiles", "src/nn/kernels_attention_impl.h", "b.dv + first * b.d, b.d, true);", "b.dv + first * b.d, b.d, false);",
     "test_nn", "Gradients.Attention*"),
    ("gradient-attention-softmax", "finite differences: attention, the softmax", "src/nn/kernels_attention_impl.h", "dp[j] = s[j] * (dp[j] - delta);", "dp[j] = s[j] * dp[j];",
     "test_nn", "Gradients.Attention*"),
    ("gradient-embedding", "finite differences: embedding", "src/nn/ops_head.cpp", "to[c] += from[c];", "to[c] = from[c];", "test_nn", "Gradients.Embedding"),
    ("gradient-linear-x", "finite differences: a product's rows", "src/nn/ops_linear.cpp", "variable_list out{at::mm(dy, w.as(x.scalar_type()))};",
     "variable_list out{at::mm(dy, w.as(x.scalar_type())) * 0.5};", "test_nn", "Gradients.Linear"),
    ("gradient-linear-w", "finite differences: a product's weight", "src/nn/ops_linear.cpp", "push_weight_gradient(out, w, at::mm(dy.t(), x));",
     "push_weight_gradient(out, w, at::mm(dy.t(), x) * 0.5);", "test_nn", "Gradients.Linear"),
    ("loops-two-vectors", "the loops of every instruction set agree: pairs of vectors (AVX-512 only)", "src/nn/kernels_attention_impl.h", "columns<P, 2>(M, K, A, a_row, a_k, B + n,",
     "columns<P, 2>(M, K, A, a_row, a_k, B,", "test_nn", "*"),
    ("simd-rows", "SIMD products equal the reference, whatever the number of rows", "src/kernels/cpu/product.inl", "if (a.rows - r == R) product_rows<P, R>(a, r, w, first, panels);", "if (a.rows - r == R) product_rows<P, (R > 1 ? R - 1 : R)>(a, r, w, first, panels);",
     "test_kernels", "*Simd*"),
    ("simd-panels", "SIMD products equal the reference, whatever the number of outputs", "src/kernels/cpu/product.inl",
     "  if constexpr (N > 1) product_rows<P, R, N / 2>(a, r, w, first, panels, n);\n", "", "test_kernels", "*Simd*"),
    ("simd-tail", "SIMD kernels equal the reference on odd shapes", "src/kernels/cpu/loops.inl",
     "if (i < n) acc = tail_select(n - i, fma(load_first(a + i, n - i), load_first(b + i, n - i), acc), acc);", "", "test_kernels", "*Simd*"),
    ("simd-guard", "SIMD kernels stay in their buffers", "src/kernels/cpu/loops.inl",
     "store_first(y + i, left, fma(gate, load_first(a + i, left), load_first(x + i, left)));",
     "store(y + i, fma(gate, load(a + i), load(x + i)));", "test_kernels", "*Simd*"),
    ("law-kept-keys", "kv keep: a row sees all earlier keys and no later one", "src/infer/block.cpp", "step.slots[writers == M ? i : step.running[i]] + 1;",
     "step.slots[i] + 1;", "test_infer", "Law.*"),
    ("law-skipped-keys", "kv drop: a skipped token leaves no key", "src/infer/block.cpp", "const bool all_write = M == N || config.routing.kv == routing::KvPolicy::keep;",
     "const bool all_write = true;", "test_agree", "*"),
    ("pages-given-back", "a finished text gives its pages back", "src/infer/kv_cache.cpp", "    pool_->give_back(table.pages.back());\n", "", "test_infer", "*"),
    ("pages-limit", "the limit of the cache is met to the page", "src/infer/kv_cache.cpp", "if (in_use_ >= page_limit())", "if (in_use_ > page_limit())", "test_infer", "Cache.*"),
    ("ties", "ties go to the earlier position", "src/nn/select.cpp", "return !is_forced(i) && a != c ? a > c : i < j;", "return !is_forced(i) && a != c ? a > c : i > j;",
     "test_nn", "Select.*"),
    ("calibration-rank", "the threshold is the k-th greatest score", "src/routing/dial.cpp", "(std::min(k, numbers) - 1);", "(std::min(k + 1, numbers) - 1);", "test_routing", "*"),
    ("calibration-order", "a block is calibrated under the thresholds before it", "src/routing/dial.cpp", "scores(u, thresholds);", "scores(u, {});", "test_routing", "*"),
    ("loader-border", "the first token of a document is no target", "src/train/loader.cpp", "    if (begin + t + 1 == next) batch.target[static_cast<size_t>(at + t)] = kIgnore;\n", "",
     "test_train", "Loader.*"),
    ("schedule", "the cosine ends at its lowest rate", "src/train/schedule.cpp", "return 1 - (1 - low) * half_cosine(p);", "return 1 - half_cosine(p);", "test_train", "Schedule.*"),
    ("step-schedule", "a step is what its configuration says: the schedule's rate", "src/train/run.cpp", "optimizer_->step(lr, norm);", "optimizer_->step(config_.optimizer.lr, norm);",
     "test_train", "Step.*"),
    ("step-share", "a step is what its configuration says: parts by their targets", "src/train/run.cpp", "(config_.accumulation == 1 ? result.total : result.total * share).backward();",
     "result.total.backward();", "test_train", "Step.*"),
    ("step-losses", "a step is what its configuration says: weights of auxiliary losses", "src/train/run.cpp", "options.aux = config_.losses;",
     "options.aux = config_.losses;\n  for (auto& [name, weight] : options.aux) weight = 0;", "test_train", "Step.*"),
    ("step-noise", "a step is what its configuration says: noise on the scores that select", "src/train/run.cpp", "options.score_noise = config_.router.noise;", "options.score_noise = 0;",
     "test_train", "Step.*"),
    ("step-graphs", "a step holds one graph at a time", "src/train/run.cpp", "    for (auto& [name, value] : result.aux) value = value.detach();\n", "", "test_train", "Step.*"),
    ("quantile-parts", "a running quantile is that of the whole step", "src/train/run.cpp", "for (size_t part = 0; part < results.size(); ++part) {", "for (size_t part = 0; part < 1; ++part) {",
     "test_train", "Step.*"),
    ("quantile-forced", "tokens at forced positions count in the quantile", "src/train/run.cpp",
     "        if (forced[part].defined()) t = t.masked_fill(forced[part], std::numeric_limits<float>::infinity());\n", "", "test_train", "Step.*"),
    ("quantile-noise", "selection by threshold meets its capacity, noise or not", "src/train/run.cpp", "quantile(&nn::RoutedResult::selecting)", "quantile(&nn::RoutedResult::raw)",
     "test_train", "Training.Threshold*"),
    ("export-data", "an export takes the dataset of its checkpoint", "src/train/trainer.cpp", '  require_same_data(c.identity, corpus, checkpoint, "its checkpoint.json");\n', "", "test_train", "Export*"),
    ("start-data", "prepared text outlives a start that fails", "src/train/trainer.cpp", '!before_.contains("data") && data::is_dataset(data)', "false", "test_train", "Starting.*"),
    ("trained-tokenizer", "the engine takes what training wrote", "src/train/finish.cpp", "out.tokenizer_json = corpus.tokenizer.json();", 'out.tokenizer_json = "{}";', "test_agree", "*Trained*"),
    ("trained-thresholds", "the engine measures what the trainer measured", "src/train/evaluate.cpp", "dial ? dial->thresholds(dial->default_dial) : thresholds(tokens)", "thresholds(tokens / 2)",
     "test_agree", "*Trained*"),
    ("bf16-copies", "bf16 copies follow the optimizer", "src/train/optimizer.cpp", "value.unsafeGetTensorImpl()->bump_version();", "(void)value;", "test_train", "Bf16.*"),
    ("quality-bytes", "bits per byte count the bytes of targets", "src/study/evaluate.cpp", "const int32_t next = w.tokens[t + 1];", "const int32_t next = w.tokens[t];", "test_study", "*"),
    ("generate-seed", "a text does not depend on its neighbours' draws", "src/infer/generate.cpp", ".stream = i,", ".stream = i / 2,", "test_infer", "Generate.*"),
    ("pages-shared", "a shared page is copied before it is written", "src/infer/kv_cache.cpp", "if (state.holders > 1 && state.written != static_cast<uint32_t>(slots)) return false;", "",
     "test_infer", "*Cache*:Scheduler.*"),
    ("prefix-dial", "a prefix is kept for the dial that it was read at", "src/infer/job.cpp", "out[position] = {tokens[position], policies[p].policy->number};", "out[position] = {tokens[position], 0};",
     "test_infer", "Scheduler.*"),
    ("prefix-lengths", "a kept prefix holds the slots of its own tokens alone", "src/infer/job.cpp", "std::count(first, first + position, static_cast", "std::count(first, decisions.run[u].end(), static_cast",
     "test_infer", "Scheduler.*"),
    ("preempted-told", "what is read again is not told again", "src/infer/job.cpp", "if (left() > 0 || told == static_cast<int64_t>(tokens.size())) return;", "if (left() > 0) return;", "test_infer", "Scheduler.*"),
    ("pages-lost", "a page that nobody holds comes back", "src/infer/kv_cache.cpp", "  while (table.pages.size() > pages) {\n", "  while (table.pages.size() > pages + 1) {\n", "test_fuzz_pages", "*"),
    ("pages-foreign", "nobody writes where another reads, whatever the order of operations", "src/infer/kv_cache.cpp", "  } else if (!pool_->claim(table.pages.back(), in_page)) {\n",
     "  } else if (in_page > 8 && !pool_->claim(table.pages.back(), in_page)) {\n", "test_fuzz_pages", "*"),
    ("samples-draws", "samples of a prompt draw by themselves", "src/infer/job.cpp", "request->stream + sample", "request->stream", "test_infer", "Scheduler.*"),
    ("kv-limit", "memory is taken from the last in turn, never beyond the limit", "src/infer/scheduler.cpp", "while (engine.pool().pages_left() < pages) {", "while (false) {", "test_infer", "Scheduler.*"),
    ("guess-kept", "what was read of wrong guesses is taken back", "src/infer/scheduler.cpp", "job.sequence.rewind(job.position, slots_at(job.out.decisions, job.position, config));", ";", "test_infer", "Scheduler.*"),
    ("attend-parts", "attention whole = in parts", "src/infer/attend.cpp", "for (Attend& a : jobs) cut(a, a.count, 1);", "for (Attend& a : jobs) cut(a, std::max<int64_t>(1, a.count - 1), 1);",
     "test_infer", "*KvTypes.*"),
    ("attend-scale", "scores of q8_0 add up over blocks", "src/kernels/cpu/attention.inl", "block == 0 ? zero() : load(at)", "zero()", "test_kernels", "*Pages*"),
    ("kv-bf16", "bf16 is the nearest, ties to even", "src/kernels/reference/loops.inl", "return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;", "return (bits + 0x8000u) >> 16;", "test_kernels", "*Pages*"),
    ("kv-columns", "columns of q8_0 go by their own scales", "src/kernels/cpu/attention.inl", "if (N > 1 && column % kKvBlock == 0 && ", "if (N > 1 && ", "test_kernels", "*Pages*"),
    ("cache-checksum", "a damaged cache file is refused", "src/infer/cache_file.cpp", "if (hash_bytes(text_at(0, size - kChecksum)) != text_at(size - kChecksum, kChecksum)) refuse", "if (false) refuse",
     "test_infer", "CacheFile.*"),
    ("cache-clear", "a cache file holds nothing of other texts", "src/infer/cache_file.cpp",
     "      kernels::clear_slots(layout, std::min(kPagePositions, sequence.length(block) - index * kPagePositions), page.data());\n", "", "test_infer", "CacheFile.*"),
    ("cache-lengths", "a cache file's decisions and slots agree", "src/infer/cache_file.cpp", "if (slots_at(out.read.decisions, position, config) != lengths) refuse", "if (false) refuse", "test_infer", "CacheFile.*"),
    ("prefix-ends", "a text goes on from where it ended", "src/infer/scheduler.cpp", "      keep_prefix(*job);\n", "", "test_infer", "Scheduler.*:CacheFile.*"),
    ("weights-released", "a model's file does not stay in memory beside its weights", "src/core/file.cpp", "if (data_) (void)::madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);", "",
     "tests/e2e/test_memory.py", "resident"),
    ("stop-string", "text that may begin a stop string is held back", "src/infer/job.cpp", "if (stream && out.finish != Finish::stop_string) out.text += text_of(out.tail = stream->finish());", "", "test_infer", "*"),
    ("bpe-order", "merges go by rank", "src/text/bpe.cpp", "const auto lowest = std::min_element(ranks.begin(), ranks.end());", "const auto lowest = std::max_element(ranks.begin(), ranks.end());",
     "test_text", "*"),
    ("piece-merges", "merges made of scores: the better piece first", "src/text/piece_merges.cpp", "return a.score > b.score;", "return a.score < b.score;", "test_text", "Gguf*"),
    ("chat-trim", "a line end behind a block goes", "src/text/jinja_lexer.cpp", 'else if (trim && looking_at("\\n")) ++to;', "", "test_text", "ChatTemplate*"),
    ("json-depth", "deep JSON is refused", "src/core/json.h", "int max_depth = limits::kJsonDepth;", "int max_depth = 1000000;", "test_core", "Json.*"),
    ("cost", "the cost model equals counted operations", "src/model/cost.cpp", "out += routing.kv == KvPolicy::keep ? t + 1 : ++running;",
     "out += (++running, t + 1);", "test_infer", "*"),
    ("resume-quantile", "resume is bit-exact", "src/train/checkpoint.cpp", 'quantiles.raw = read_quantile(file, "quantile.raw", routed_blocks);',
     'quantiles.raw = read_quantile(file, "quantile.decision", routed_blocks);', "test_train", "*Resume*"),
    ("resume-hash", "a damaged checkpoint is refused", "src/train/checkpoint.cpp", "  if (found != expected)\n    throw UserError({state_path(path)", "  if (false)\n    throw UserError({state_path(path)", "test_train", "StoppedRun.*"),
    ("kill-atomic", "thirty kills lose nothing", "src/train/checkpoint.cpp", "  atomic_folder(path, [&](const std::string& folder) {",
     "  make_folders(path);\n  ([&](const auto& write) { write(path); })([&](const std::string& folder) {", "tests/e2e/test_kill.py", "thirty"),
    ("bad-overlap", "overlapping tensors are refused", "src/formats/safetensors.cpp", "if (raw.begin != expected) {", "if (raw.begin > expected) {", "test_formats", "*"),
    ("bad-gguf-wrap", "a GGUF shape whose product wraps is refused", "src/formats/gguf.cpp", "for (int64_t d : t.shape) overflow = overflow || __builtin_mul_overflow(elements, d, &elements);",
     "for (int64_t d : t.shape) elements = static_cast<int64_t>(static_cast<uint64_t>(elements) * static_cast<uint64_t>(d));", "test_formats", "*BadGguf*"),
    ("bad-gguf-overlap", "two GGUF tensors on the same bytes are refused", "src/formats/gguf.cpp", "if (begin(t) < end)", "if (begin(t) < begin(before))", "test_formats", "*BadGguf*"),
    ("bad-gguf-string", "a length past its bound is refused", "src/formats/gguf_cursor.h", "if (length > static_cast<uint64_t>(cap)) fail", "if (length > static_cast<uint64_t>(cap) + 1) fail", "test_formats", "Limits.Gguf"),
    ("ggml-codes", "blocks unpack as the gguf package unpacks them", "src/formats/ggml_decode.cpp", "(high[j] >> 6) << 4", "(high[j] >> 6 & 1) << 4", "tests/oracle/test_gguf.py", "dequantised"),
    ("ggml-halves", "blocks are packed as the gguf package packs them", "src/formats/ggml_quantize.cpp", ">= 0.5f)", "> 0.5f)", "tests/oracle/test_gguf.py", "quantised"),
    ("ggml-search", "the search for K types is at least llama.cpp's", "src/formats/ggml_quantize_k.cpp", "for (int i = -10; i <= 20; ++i) fit.attempt", "for (int i = -10; i <= -10; ++i) fit.attempt", "test_formats", "GgmlQuantize.*"),
    ("quantised-offset", "quantised products: the code that stands for 0", "src/kernels/layout.h", '"q4", .offset = 8', '"q4", .offset = 7', "test_kernels", "*Quantized*"),
    ("quantised-minimum", "quantised products: what a block's minimum adds", "src/kernels/reference/loops.inl", "x_scale * static_cast<float>(sums[0] + sums[1])", "x_scale * static_cast<float>(sums[0] + sums[0])",
     "test_kernels", "Quantized.*"),
    ("quantised-high-bits", "quantised products: bits of a code beyond four", "src/kernels/cpu/quantized.inl", "shift_left(high, 4 - moved)", "shift_left(high, 4)", "test_kernels", "*Quantized*"),
    ("quantised-halves", "quantised products: scales of 16 elements", "src/kernels/cpu/quantized.inl", "l.scales == 2 ? half[part]", "l.scales == 2 ? half[0]", "test_kernels", "*Quantized*"),
    ("quantised-head", "quantised products: the scales of a super-block", "src/kernels/reference/loops.inl", "b / kSuperBlock * kSuperBlock", "b / kSuperBlock * 0", "test_kernels", "Quantized.*"),
    ("quantised-sign", "weights are what the file holds", "src/infer/weights.cpp", "two_level ? 0x8000 : 0;", "two_level ? 0 : 0;", "test_infer", "Quantized.*"),
    ("plain-bf16", "products of bf16 are their definition, the odd one of a pair first", "src/kernels/cpu/matmul.inl", "fma(x.even, w.even, fma(x.odd, w.odd, acc))", "fma(x.odd, w.odd, fma(x.even, w.even, acc))", "test_kernels", "*PlainSimd*"),
    ("gguf-rotary", "GGUF files interleave the halves of rotary pairs", "src/model/stored_tensor.cpp", "return n - in + in % half * 2 + in / half;", "return n - in + in % half * 2 + in / half * 0;", "test_model", "Gguf*"),
    ("gguf-vector", "GGUF files interleave the elements of biases too", "src/model/stored_tensor.cpp", "  if (interleaved_head == 0 || shape.size() > 1) return;", "  return;", "test_model", "Gguf*"),
    ("gguf-qwen", "Qwen's GGUF files do not interleave", "src/model/gguf_model.cpp", "  return is_llama(architecture) && (name.find", "  return (name.find", "test_model", "Gguf*"),
    ("gguf-divisors", "rope_freqs.weight scales the positions", "src/model/gguf_model.cpp", "  s.type = Type::divided;\n", "", "test_model", "Gguf*"),
    ("family-bias", "biases are added to queries and keys", "src/infer/block.cpp", "  add_bias(step, x, 1, bias);\n", "", "test_infer", "Forward.*"),
    ("family-output-bias", "biases are added to what attention gives", "src/infer/block.cpp", "  add_bias(step, step.delta.data(), M, w.o_bias);\n", "", "test_infer", "Forward.*"),
    ("family-mlp-bias", "biases are added in the feed-forward part", "src/infer/block.cpp", "    add_bias(step, up + first * F, last - first, w.up_bias);\n", "", "test_infer", "Forward.*"),
    ("family-head-norm", "every head's query and key has its norm", "src/infer/block.cpp", "rms_norm(x, D, heads, D, norm.data()", "rms_norm(x, D, 1, D, norm.data()", "test_infer", "Forward.*"),
    ("family-written", "transformers computes what we write", "src/model/config.cpp", "  if (!c.qk_norm && c.qkv_bias && !c.mlp_bias) return kQwen2;\n", "  if (!c.qk_norm && c.qkv_bias && !c.mlp_bias) return kLlama;\n",
     "test_model", "ModelConfig.*"),
    ("family-window", "no text is longer than the window of attention", "src/model/config.cpp", "c.max_position_embeddings = std::min(c.max_position_embeddings, *window);", "static_cast<void>(*window);",
     "test_model", "ModelConfig.*"),
    ("family-oracle", "families equal transformers", "src/model/config.cpp", 'c.output_bias = type != "qwen2" && c.qkv_bias;', "c.output_bias = c.qkv_bias;", "tests/oracle/test_families.py", "logits"),
    ("family-bytes", "a row that keeps its key reads the vectors of keys and values", "src/model/cost.cpp", "kOther * (stored * kv_vectors + attends * q_vectors", "kOther * (attends * kv_vectors + stored * q_vectors",
     "test_model", "DecodeBytes.*"),
    ("rope-llama3", "fast pairs keep their frequency", "src/model/rope.cpp", "  if (wavelength < shortest) return frequency;\n", "", "test_model", "Rope.*"),
    ("rope-yarn", "scaled positions raise the logits", "src/infer/rope.cpp", "at, at + half_, attention_factor_);", "at, at + half_);", "test_infer", "Forward.*"),
    ("bad-duplicate-key", "a key twice is refused", "src/core/json.cpp", "if (!keys_.back().insert(k).second)", "if (keys_.back().insert(k).second && k == \"no such key\")", "test_core", "Json.*"),
    ("bad-bound", "a bound of config.json holds", "src/model/config.cpp", 'c.head_dim = f.integer("head_dim", 1, kHeadWidth,', 'c.head_dim = f.integer("head_dim", 1, 2 * kHeadWidth,',
     "test_model", "ModelConfig.*"),
    ("gguf-writer-offset", "a GGUF file of ours says where its tensors are", "src/formats/gguf_writer.cpp", "    offset += padded(t.bytes());\n", "    offset += t.bytes();\n",
     "test_formats", "GgufWriter.*"),
    ("quantize-rotary", "q and k of a GGUF file of ours are interleaved", "src/model/stored_tensor.cpp", "return n - in + in % 2 * (head_dim / 2) + in / 2;", "return n;",
     "test_convert", "Quantize.AnEngineOverAGguf*"),
    ("quantize-vector", "so are the elements of their biases", "src/convert/quantize.cpp", "  if (source.shape.size() == 1 && head > 0) {", "  if (source.shape.size() == 1 && head > 1000) {",
     "test_convert", "Quantize.*"),
    ("quantize-divisors", "a GGUF file of ours says how Llama 3's positions are scaled", "src/model/rope.cpp", "  if (scaling.type == Type::divided) return scaling.divisors;\n  if (scaling.type != Type::llama3) return {};",
     "  if (scaling.type == Type::divided) return scaling.divisors;\n  return {};", "tests/oracle/test_families.py", "ours_is_what"),
    ("quantize-router", "routers stay f32", "src/model/schema.cpp", "return spec.name.ends_with(\"_proj.weight\") ||", "return spec.name.ends_with(\"_proj.weight\") || spec.name.ends_with(\"router.weight\") ||",
     "test_convert", "PlanQuantize.*"),
    ("quantize-carried", "what has the type keeps its bytes", "src/convert/quantize.cpp", "    p.carried = p.from == p.to;\n", "    p.carried = false;\n", "test_convert", "Quantize.WhatHas*"),
    ("quantize-range", "a weight that the type cannot hold is refused", "src/convert/quantize.cpp", "    if (!std::isfinite(back[k]))\n", "    if (std::isnan(back[k]))\n",
     "test_convert", "Quantize.RefusesByName"),
    ("quantize-overwrite", "the old folder stands until the new one is whole", "src/convert/quantize.cpp", "  atomic_folder(beside, fill);\n  remove_all(place.string());\n",
     "  remove_all(place.string());\n  atomic_folder(beside, fill);\n", "test_convert", "Quantize.Overwrites*"),
    ("walk-order", "calibration decides earlier blocks by their thresholds", "src/infer/walk.cpp", "    policy.thresholds = thresholds;\n    policy.thresholds.resize(routing().cuts(), std::numeric_limits<float>::infinity());\n",
     "    policy.thresholds.assign(routing().cuts(), -std::numeric_limits<float>::infinity());\n", "test_convert", "Calibrate.*"),
    ("walk-forced", "forced positions count inside the capacity", "src/infer/walk.cpp", "s.step.rows[i].position < routing.forced_positions ?", "s.step.rows[i].position < 0 ?",
     "test_infer", "BlockWalk.*"),
    ("calibrate-grid", "every dial gets the capacities that meet it", "src/convert/calibrate.cpp", "else if (std::abs(old.dial - grid.default_dial) > kSameDial) capacity", "else if (old.dial > 2) capacity",
     "test_agree", "*CalibratesAlike*"),
    ("walk-restart", "every dial begins at the first routed block", "src/infer/walk.cpp", "    chunk.now = chunk.first;\n    std::ranges::fill", "    std::ranges::fill",
     "test_infer", "BlockWalk.*"),
    ("kl-direction", "the divergence is the result's from the original", "src/study/divergence.cpp", "sum += std::exp(p) * (p - q);", "sum += std::exp(q) * (q - p);", "test_study", "Divergence.*"),
    ("kl-last-token", "the last token of a window predicts nothing", "src/study/divergence.cpp", "predicted = std::min(here, size - 1 - at);", "predicted = std::min(here, size - 2 - at);",
     "test_study", "*Diverge.*"),
    ("gguf-export-added", "added tokens keep their kind", "src/text/gguf_export.cpp", "special ? GgufTokenType::control : GgufTokenType::user_defined", "GgufTokenType::control",
     "test_text", "GgufExport.*"),
    ("api-run", "events tell what the engine decided", "src/api/driver.cpp", ".run = {e.run.begin(), e.run.end()}", ".run = std::vector<uint8_t>(e.run.size(), 1)",
     "test_api", "Engine.WritesWhat*"),
    ("api-cancel", "a cancelled text ends and gives its memory back", "src/api/driver.cpp", "case Command::cancel: scheduler_->cancel(t.id); break;",
     "case Command::cancel: break;", "test_api", "Engine.ACancelled*"),
    ("api-one-stepper", "one thread makes a step, whoever waits", "src/api/driver.cpp", "    if (busy_ || closed_ || turn_ != 0) {", "    if (closed_ || turn_ != 0) {",
     "test_api", "Engine.Threads*"),
    ("api-failed-step", "a failed step is an error of its requests alone", "src/api/driver.cpp", "    make_scheduler();  // what has thrown", "    // what has thrown",
     "test_api", "Engine.AFailedStep*"),
    ("api-dials", "a request's past keeps its dials", "src/api/request.cpp", "policies.push_back({d.position, model.policy(d.dial)});",
     "policies.push_back({d.position, model.policy(r.dials[0].dial)});", "test_api", "Engine.ADialMayChange"),
    ("api-hidden", "the library shows its interface alone", "cmake/Library.cmake", "-Wl,--exclude-libs,ALL", "-Wl,--as-needed", "tests/e2e/test_install.py", "interface_alone"),
    ("api-internals", "no internal header is installed", "cmake/Install.cmake", "install(DIRECTORY include/fathom DESTINATION", "install(DIRECTORY include/fathom src/api DESTINATION",
     "tests/e2e/test_install.py", "what_is_installed"),
    ("api-moved", "what is installed may be moved", "cmake/fathom.pc.in", "prefix=${pcfiledir}/@up@", "prefix=@CMAKE_INSTALL_PREFIX@", "tests/e2e/test_install.py", "pkg_config"),
    ("paths-exit", "who has exited runs no later unit", "src/infer/decide.cpp", "if (rows.exited[t]) rows.run[t]", "if (rows.run[t] == static_cast<uint8_t>(Path::exit)) rows.run[t]",
     "test_infer", "Forward.Policies*"),
    ("paths-cuts", "each cut has its own threshold", "src/infer/decide.cpp", "const size_t cut = u.first_cut + i - 1;", "const size_t cut = u.first_cut + u.paths.size() - 1 - i;", "test_infer", "Forward.Policies*"),
    ("paths-control", "the control meets its capacities where tokens exit", "src/infer/decide.cpp", "* left < policy.capacity[cut]", "< policy.capacity[cut]", "test_infer", "Forward.Policies*"),
    ("paths-order", "kept keys are those of the block's input", "src/infer/block.cpp", "  const int64_t slots = run_attention(step, block);\n  run_light(step, step.light, step.light_weights);\n",
     "  run_light(step, step.light, step.light_weights);\n  const int64_t slots = run_attention(step, block);\n", "test_infer", "Forward.Computes*"),
    ("paths-whole", "the MLP of a whole block reads x + a, whatever the gate", "src/infer/block.cpp", "if (step.whole && !step.gate.empty()) norm_rows", "if (step.whole && step.rows.empty()) norm_rows", "test_infer", "Forward.Computes*"),
    ("paths-parts", "an MLP of its own reads what attention left", "src/infer/decide.cpp", "step.whole = unit.part == Part::block;", "step.whole = true;", "test_infer", "Forward.Computes*"),
    ("paths-silent", "a static attention takes no slots", "src/infer/job.cpp", "routing::KvPolicy::keep && !unit.is_static())) continue;", "routing::KvPolicy::keep)) continue;", "test_infer", "Scheduler.*"),
    ("paths-walk", "who has exited counts as one who cannot run", "src/infer/walk.cpp", "exited[i] ? -kInfinity : s.step.score[i]", "s.step.score[i]", "test_infer", "BlockWalk.*"),
    ("paths-cost", "light paths are priced", "src/model/cost.cpp", "    if (unit.paths.light) out.light = sum", "    if (unit.light_rank > 1000) out.light = sum", "test_infer", "Paths.TheLaw*"),
    ("paths-depth", "half a block is no depth", "src/routing/config.cpp", "else if (!full) out -=", "else if (!full) out += 0 *", "test_routing", "RoutingConfig.UnitsOfABlock"),
    ("paths-quantised", "light paths are quantised", "src/model/schema.cpp", 'spec.name.ends_with("light.up.weight")', 'spec.name.ends_with("light.flat.weight")', "test_convert", "Quantize.LightPaths*"),
    ("paths-agreement", "agreement knows exits", "src/study/evaluate.cpp", "const bool rule = forced || (!exited[t] && ", "const bool rule = forced || (", "test_study", "Evaluate.AgreementKnows*"),
    ("paths-training", "training refuses what it does not compute", "src/nn/parameters.cpp", '  s.config.routing.require_plain("the network");\n', "", "test_nn", "Transformer.Refuses*"),
]


def sh(command, cwd, env=None, log=None):
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if log is not None:
        log.append(done.stdout)
    return done.returncode


def build(folder, targets, log):
    return sh(["ninja", "-C", str(folder / "build"), *targets], folder, None, log)


def test(folder, program, cases, log):
    env = dict(os.environ, FATHOM_BUILD=str(folder / "build"), OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", PYTHONDONTWRITEBYTECODE="1")
    if program.endswith(".py"):
        return sh([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", program, "-k", cases], folder / "source", env, log)
    return sh([str(folder / "build/tests" / program), "--gtest_brief=1", f"--gtest_filter={cases}"], folder / "source", env, log)


def prepare(folder, targets):
    """The tracked files as they are now; only what changed is copied, so that the build stays warm."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        here, there = ROOT / name, folder / "source" / name
        if not here.is_file() or (there.is_file() and there.read_bytes() == here.read_bytes()):
            continue
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(here, there)
        os.utime(there)
    venv = folder / "source/.venv"
    if not venv.exists() and (ROOT / ".venv").exists():
        venv.symlink_to(ROOT / ".venv")
    log = []
    if sh(["source/scripts/build", "../build", "-DFATHOM_TESTS=ON", "--", *targets], folder, None, log) != 0:
        sys.exit(log[-1][-3000:])


def targets_of(program):
    return ["all"] if program.endswith(".py") else [program]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "build/mutations")
    a = parser.parse_args()
    folder = a.folder.resolve()
    chosen = [m for m in MUTATIONS if not a.names or m[0] in a.names]
    folder.mkdir(parents=True, exist_ok=True)
    targets = sorted({target for m in chosen for target in targets_of(m[5])})
    prepare(folder, targets)
    survived = 0
    for name, proves, file, written, broken, program, cases in chosen:
        path, start, log = folder / "source" / file, time.time(), []
        text = path.read_text()
        if text.count(written) != 1:
            verdict = f"NOT APPLIED: found {text.count(written)} times in {file}"
        else:
            try:
                path.write_text(text.replace(written, broken))
                if build(folder, targets_of(program), log) != 0:
                    verdict = "NOT APPLIED: does not compile\n" + log[-1][-1500:]
                else:
                    verdict = "seen to fail" if test(folder, program, cases, log) != 0 else "SURVIVED"
            finally:
                path.write_text(text)
        survived += verdict != "seen to fail"
        print(f"{name:20} {verdict:14} {program} {cases}: {proves} ({time.time() - start:.0f} s)", flush=True)
    wrong, log = 0, []
    build(folder, targets, log)
    for program, cases in sorted({(m[5], m[6]) for m in chosen}):
        if test(folder, program, cases, log) != 0:
            wrong += 1
            print(f"{program} {cases} fails with the code as written:\n{log[-1][-2000:]}")
    print(f"{len(chosen) - survived} of {len(chosen)} mutations seen to fail" + (f"; {wrong} tests fail without one" if wrong else "; all of these tests pass without one"))
    return 1 if survived or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
