//! portolan-netsim
