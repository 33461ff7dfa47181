// For tests: a PDF.
#pragma once

#include <string>

#include "absl/strings/str_cat.h"

namespace flowmesh::retrieval {

// The smallest PDF with a text: objects without a cross-reference table, which readers repair.
inline std::string TestPdf(const std::string& text) {
  const std::string content = absl::StrCat("BT /F1 24 Tf 72 700 Td (", text, ") Tj ET");
  return absl::StrCat(
      "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
      "2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
      "3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 "
      "5 0 R>>>>>>endobj\n4 0 obj<</Length ",
      content.size(), ">>stream\n", content,
      "\nendstream endobj\n5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj\n"
      "trailer<</Root 1 0 R>>\n");
}

}  // namespace flowmesh::retrieval
