// Declares what bindings_noise.cpp adds to the module.

#pragma once

#include <nanobind/nanobind.h>

void bind_noise(nanobind::module_& module);
