#include <gtest/gtest.h>

#include "text/tokenizer.h"
