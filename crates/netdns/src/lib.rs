//! portolan-netdns
