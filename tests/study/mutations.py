"""What the tests here are to notice; tests/mutations.py says how an entry reads and runs them."""
MUTATIONS = [
    ("quality-bytes", "bits per byte count the bytes of targets", "src/study/evaluate.cpp", "const int32_t next = w.tokens[t + 1];", "const int32_t next = w.tokens[t];", "test_study", "*"),
    ("kl-direction", "the divergence is the result's from the original", "src/study/divergence.cpp", "sum += std::exp(p) * (p - q);", "sum += std::exp(q) * (q - p);", "test_study", "Divergence.*"),
    ("kl-last-token", "the last token of a window predicts nothing", "src/study/divergence.cpp", "predicted = std::min(here, size - 1 - at);", "predicted = std::min(here, size - 2 - at);",
     "test_study", "*Diverge.*"),
    ("paths-agreement", "agreement knows exits", "src/study/evaluate.cpp", "const bool rule = forced || (!exited[t] && ", "const bool rule = forced || (", "test_study", "Evaluate.AgreementKnows*"),
    ("task-answer-line", "a question is followed by a line for its answer", "src/study/tasks.cpp", "item.context.ends_with('\\n') ? \"Answer:\" : \"\\nAnswer:\"", "\"\\nAnswer:\"", "test_study", "TaskFiles.*"),
    ("task-seam", "the context's own number of tokens comes off the whole", "src/study/task_encoder.cpp", "std::min(std::ssize(p.context), std::ssize(p.continuation)));",
     "(std::ranges::mismatch(p.context, p.continuation).in2 - p.continuation.begin()));", "test_study", "TaskEncoder.*"),
    ("task-space", "white space goes to the continuation", "src/study/task_encoder.cpp", "text::jinja::strip_right(context);", "context;", "test_study", "TaskEncoder.*"),
    ("task-cut", "a text of one token more than the context is whole, since its last is not read", "src/study/task_encoder.cpp", "> context_ + 1;", "> context_;", "test_study", "TaskEncoder.*"),
    ("task-characters", "a choice's length is in characters", "src/study/task_result.cpp", "& 0xc0) != 0x80; }", "& 0xc0) != 0x100; }", "test_study", "TaskEval.AnAnswer*"),
    ("task-greedy", "a continuation is right when each of its tokens is the most likely", "src/study/task_eval.cpp", "c.greedy &= step_.best", "c.greedy = step_.best", "test_study", "TaskEval.AContinuation*"),
    ("task-shared", "choices go on from one reading of their context", "src/study/task_eval.cpp", "Branch{r.context.sequence.fork(), r.context.decisions, 0}", "Branch{engine_.new_sequence(), r.context.decisions, 0}", "test_study", "TaskEval.Sums*"),
    ("task-cost", "a shared context is paid once", "src/study/task_eval.cpp", "0, 1 - std::ssize(r.choices));", "0, 0);", "test_study", "TaskEval.Sums*"),
    ("task-resumed", "half a line at the end is cut off", "src/study/task_progress.cpp", "if (whole < text.size()) std::filesystem", "if (whole > text.size()) std::filesystem", "test_study", "Resumed.*"),
    ("task-foreign", "results of another model are refused", "src/study/task_progress.cpp", "!other.empty())", "other == \"nothing\")", "test_study", "Resumed.*"),
]
