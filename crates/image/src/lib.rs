//! portolan-image
