// A public request as the scheduler wants it.
#pragma once
#include "api/internals.h"
#include "fathom/request.h"
#include "infer/scheduler.h"

namespace fathom {

// `now`: on the scheduler's clock. What is pointed at belongs to the model. UserError names the field that is wrong here; what the
// scheduler checks itself is left to it.
infer::Request request_of(const Internals::ModelState& model, const Request& request, double now);

}  // namespace fathom
