//! portolan-netlinux
