//! What the figures were measured on.

use std::fmt;

use serde::Serialize;

/// The machine and the broker.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Machine {
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// Memory in MiB.
    pub(crate) memory_mib: u64,
    /// The processor's name.
    pub(crate) processor: String,
    /// The kernel's name and release.
    pub(crate) kernel: String,
    /// The broker's version.
    pub(crate) rabbitmq: String,
    /// What else was asking for the processors when the measurement began: load average of the
    /// last minute.
    pub(crate) load_before: f64,
}

impl Machine {
    pub(crate) fn here(rabbitmq: String) -> Self {
        let kernel = rustix::system::uname();
        let memory = field("/proc/meminfo", "MemTotal:").unwrap_or_default();
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            cores: cores(),
            memory_mib: memory.trim_end_matches(" kB").parse().unwrap_or(0) / 1024,
            processor: field("/proc/cpuinfo", "model name").unwrap_or_default(),
            kernel: format!(
                "{} {}",
                kernel.sysname().to_string_lossy(),
                kernel.release().to_string_lossy()
            ),
            rabbitmq,
            load_before: load
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

/// How many cores this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim_start_matches(['\t', ' ', ':']).to_owned())
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cores ({}), {} MiB, {}, RabbitMQ {}, load {} before",
            self.cores,
            self.processor,
            self.memory_mib,
            self.kernel,
            self.rabbitmq,
            self.load_before
        )
    }
}
