//! The HTTP client of an endpoint.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bellhop_common::tls;
use reqwest::{Certificate, Client, Url, redirect};

use super::config::EndpointConfig;

/// How long a connection is kept for the next job. A server that closes it just when that job is
/// posted would cost an attempt; common servers do so after 2 to 5 s.
const IDLE: Duration = Duration::from_secs(1);

/// A client for one endpoint.
pub(super) fn client(config: &EndpointConfig, url: &Url) -> Result<Client, String> {
    // The client would panic without one.
    tls::install_provider();
    let mut builder = Client::builder()
        .user_agent(concat!("bellhop-worker/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .no_proxy()
        .pool_idle_timeout(IDLE)
        .connect_timeout(config.connect_timeout.0);
    if url.scheme() == "http" {
        // The system's certificates are not needed: they cost memory, and may be missing.
        builder = builder.tls_certs_only([]);
    } else if let Some(path) = &config.ca_file {
        let unusable = |error: &dyn fmt::Display| {
            format!("ca_file {} cannot be used: {error}", path.display())
        };
        let pem = std::fs::read(path).map_err(|error| unusable(&error))?;
        let certificates =
            Certificate::from_pem_bundle(&pem).map_err(|error| unusable(&causes(error)))?;
        if certificates.is_empty() {
            return Err(unusable(&"there is no certificate in it"));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    builder
        .build()
        .map_err(|error| format!("url needs TLS, which cannot be set up: {}", causes(error)))
}

/// An error with what caused it, without the address.
pub(super) fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
