// The version of the library. This file is its one source: CMakeLists.txt and meson.build read it.
#pragma once

namespace tcp {

// Everything lives in an inline namespace named after what may change the interface, so that two
// versions in one program do not collide silently.
inline namespace v0_1 {

/// Semantic versioning: before 1.0.0 a new minor version may change the interface.
inline constexpr int version_major = 0;
inline constexpr int version_minor = 1;
inline constexpr int version_patch = 0;

}  // namespace v0_1
}  // namespace tcp
