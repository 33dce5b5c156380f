//! portolan-daemon
