"""What the tests here are to notice; tests/mutations.py says how an entry reads and runs them."""
MUTATIONS = [
    ("pages-lost", "a page that nobody holds comes back", "src/infer/kv_cache.cpp", "  while (table.pages.size() > pages) {\n", "  while (table.pages.size() > pages + 1) {\n", "test_fuzz_pages", "*"),
    ("pages-foreign", "nobody writes where another reads, whatever the order of operations", "src/infer/kv_cache.cpp", "  } else if (!pool_->claim(table.pages.back(), in_page)) {\n",
     "  } else if (in_page > 8 && !pool_->claim(table.pages.back(), in_page)) {\n", "test_fuzz_pages", "*"),
]
