//! Against the kernel, each test in a network and mount namespace of its own.

mod lab;
mod ports;
mod sandboxes;
