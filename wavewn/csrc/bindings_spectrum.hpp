// Declares what bindings_spectrum.cpp adds to the module.

#pragma once

#include <nanobind/nanobind.h>

void bind_spectrum(nanobind::module_& module);
