//! portolan-testkit
