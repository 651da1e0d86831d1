//! The handlers that come with the worker, on real files and real processes.

#[cfg(test)]
mod checksum;
#[cfg(test)]
mod endpoint;
#[cfg(test)]
mod exec;
#[cfg(test)]
mod scratch;
