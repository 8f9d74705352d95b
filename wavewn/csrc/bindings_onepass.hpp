// Declares what bindings_onepass.cpp adds to the module.

#pragma once

#include <nanobind/nanobind.h>

void bind_onepass(nanobind::module_& module);
