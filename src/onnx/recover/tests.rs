//! Each form as exporters write it, and close to it.
