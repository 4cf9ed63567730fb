"""What the tests here are to notice; tests/mutations.py says how an entry reads and runs them."""
MUTATIONS = [
    ("json-depth", "deep JSON is refused", "src/core/json.h", "int max_depth = limits::kJsonDepth;", "int max_depth = 1000000;", "test_core", "Json.*"),
    ("bad-duplicate-key", "a key twice is refused", "src/core/json.cpp", "if (!keys_.back().insert(k).second)", "if (keys_.back().insert(k).second && k == \"no such key\")", "test_core", "Json.*"),
    ("pools-turn", "pools take turns", "src/core/thread_pool.cpp", "  const std::lock_guard alone(turn);\n", "", "test_core", "ThreadPool.PoolsTakeTurns"),
]
