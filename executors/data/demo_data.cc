#include "executors/data/demo_data.h"

namespace flowmesh::data {

std::vector<Preference> DemoPreferences() {
  return {
      {"Explain what a tide is.", "The rise and fall of the sea, driven by the Moon's pull.",
       "It is when the water does things."},
      {"Name a use of copper.", "Copper carries electricity in cables and motors.",
       "Copper is a word with six letters."},
      {"How do I keep bread fresh?", "Wrap it, keep it dry and cool, and freeze what is left.",
       "Bread is not important."},
      {"What does a compass show?", "The direction of magnetic north.", "Where you want to go."},
  };
}

std::vector<std::string> DemoQueries() {
  return {"The best part of a journey is", "A good neighbour always", "When the rain stopped,",
          "The soup was so good that"};
}

}  // namespace flowmesh::data
