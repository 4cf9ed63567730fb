// All of Fathom's C++ interface: a model, an engine that writes texts for many requests at once, and the scores of texts that are
// there. docs/api.md is the tour.
#pragma once
#include "fathom/engine.h"   // IWYU pragma: export
#include "fathom/error.h"    // IWYU pragma: export
#include "fathom/events.h"   // IWYU pragma: export
#include "fathom/model.h"    // IWYU pragma: export
#include "fathom/request.h"  // IWYU pragma: export
#include "fathom/score.h"    // IWYU pragma: export
#include "fathom/version.h"  // IWYU pragma: export
