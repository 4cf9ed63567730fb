// The page of `fathom depthmap`: one DepthStudy as self-contained HTML.
#pragma once
#include <string>

#include "study/depth.h"

namespace fathom::study {

std::string depthmap_page(const DepthStudy& study);

// Its sections without the page around them, for the report.
std::string depth_sections(const DepthStudy& study);

}  // namespace fathom::study
