//! Stories of real containers. They need root and busybox, and touch nothing but their own
//! directories, cgroups and namespaces.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod external;
mod fixture;
mod isolation;
mod lifecycle;
mod streams;
