//! Against the kernel, each test in a network and mount namespace of its own.

mod ask;
mod lab;
mod ports;
mod sandboxes;
