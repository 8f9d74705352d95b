// What the files that know Python have in common; bindings.cpp makes the module of them.

#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

template <class T, int Axes>
using Array = nanobind::ndarray<T, nanobind::ndim<Axes>, nanobind::c_contig, nanobind::device::cpu>;

void bind_noise(nanobind::module_& module);
void bind_onepass(nanobind::module_& module);
void bind_spectrum(nanobind::module_& module);
void bind_training(nanobind::module_& module);
