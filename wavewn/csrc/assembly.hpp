// Which matrices a network has, and in which order they lie in the arena.

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "packing.hpp"

namespace wavewn {

// Lay out every matrix that `packing.network` asks for by its sizes, and the state of a stream.
// Before it: the sizes, the precision, what a set asks of `packing`. After it: speakers and ramp
// by `packing.put`, then `packing.finish`.
//
// dilations: of the layers. features: inputs of the input layer.
// find: gives a matrix by its name in engine/native.py, with sizes, until it is asked for the next.
//
// Throws std::invalid_argument where a matrix has another size.
void assemble(Packing& packing, const std::vector<int>& dilations, int features,
              const std::function<Plain(const std::string& name)>& find);

}  // namespace wavewn
