//! The TLS provider of the process.

/// Makes ring the process's TLS provider. Called before the first connection; later calls change
/// nothing.
pub fn install_provider() {
    // An error means that a provider is installed already, which is what we want.
    drop(rustls::crypto::ring::default_provider().install_default());
}
