//! Stories of real containers. They need root and busybox, and touch nothing but their own
//! directories, cgroups and namespaces.

mod fixture;
mod isolation;
mod lifecycle;
mod streams;
