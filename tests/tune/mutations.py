"""What the tests here are to notice; tests/mutations.py says how an entry reads and runs them."""
MUTATIONS = [
    ("tune-collapse", "a router that lets nobody in is named, though the first tokens of a text always run", "src/tune/stage.cpp", "share < forced + kAlmostNone", "share < kAlmostNone", "tests/e2e/test_tune.py", "decides_nothing"),
    ("tune-first-row", "the second stage goes on where the first ended", "src/tune/stage.cpp", "for (size_t i = 0; i < index; ++i) first_row_ +=", "for (size_t i = 1; i < index; ++i) first_row_ +=", "test_tune", "*OneStage*"),
    ("tune-noise-resume", "a resume draws the noise of its step", "src/tune/stage.cpp", "static_cast<uint64_t>(first_row_ + part));", "static_cast<uint64_t>(Clock::now().time_since_epoch().count()));", "test_tune", "*Resume*:*Crash*"),
    ("tune-before", "a stage begins with what the one before tuned", "src/tune/stage.cpp", "for (const auto& [name, tensor] : tuned.tensors) network_->load(name, tensor.to_f32());", ";", "test_tune", "*Loss*:*OneStage*"),
    ("tune-documents", "the teacher keeps documents apart", "src/train/loader.cpp", "end < batch.tokens && start(end) == start(begin)", "end < batch.tokens", "test_tune", "Teacher*"),
    ("tune-cache-row", "a kept row is the row that is asked for", "src/tune/teacher.cpp", "s.cache->read(first_row + row)", "s.cache->read(row)", "test_tune", "Teacher*"),
    ("tune-torn", "a record that was not finished is dropped", "src/tune/teacher_cache.cpp", "::ftruncate(fd_, file_bytes(records_)) != 0 ||", "", "test_tune", "TeacherCache*"),
    ("tune-target", "the budget's target is this step's", "src/tune/stage.cpp", "budget.target = target;", "budget.target = 0.9;", "test_tune", "*Budget*"),
    ("tune-topk-shares", "by top-k blocks keep the shares of the dial", "src/tune/stage.cpp", "options.capacity = shares;", ";", "test_tune", "*TopK*"),
    ("tune-topk-lowest", "by top-k a row's threshold is the least score that was selected", "src/nn/pass_units.cpp", "least = std::min(least, score[row]);", "least = std::min(least, score[row] - 1);", "tests/oracle/test_tune.py", "gradients"),
    ("tune-artifact-rounding", "the model is that of the artifact", "src/tune/finish.cpp", "if (parts) tuned = convert::rounded(std::move(tuned), formats::Dtype::F16);", "", "test_tune", "*Artifact*"),
    ("tune-adapter-lr", "routers alone leave the backbone as it is", "src/tune/stage.cpp", "t.everything = stage.what == What::everything;", "t.everything = true;", "test_tune", "*DialOne*"),
    ("tune-rows-turn", "rows of other text go on where they were", "src/tune/rows.cpp", "config.seed, others_before(config, first)));", "config.seed, 0));", "test_tune", "Rows.TwoTexts*"),
    ("tune-rows-weight", "they count by their weight", "src/tune/stage.cpp", "    options.target_weights = weights;\n", "", "test_tune", "Rows.WhatCounts*"),
]
