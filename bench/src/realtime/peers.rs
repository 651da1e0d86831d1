//! The peers as Debian has them: found, built, or said what to install.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Map, Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use super::servers::Side;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");
/// Where Debian puts the sources of Go packages.
const GOPATH: &str = "/usr/share/gocode";
const CENTRIFUGE: &str = "golang-go golang-github-centrifugal-centrifuge-dev \
     golang-github-golang-jwt-jwt-dev";
const NCHAN: &str = "nginx-light libnginx-mod-nchan";
const MODULES: &str = "/usr/lib/nginx/modules";
/// The first build compiles Go's library.
const BUILD: Duration = Duration::from_mins(10);

/// Where the peers' programs are.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    centrifuge: Option<PathBuf>,
    nginx: Option<PathBuf>,
    versions: Vec<(Side, String)>,
}

impl Peers {
    /// Makes sure of those that are wanted; what is built goes below `folder`.
    pub(crate) async fn find(folder: &Path, sides: &[Side]) -> anyhow::Result<Self> {
        let mut peers = Self::default();
        if sides.contains(&Side::Centrifuge) {
            peers.centrifuge = Some(build(&folder.join("centrifuge")).await?);
            let go = output(Command::new("go").arg("version")).await?;
            let library = package("golang-github-centrifugal-centrifuge-dev").await?;
            let version = format!("{library}, {}", go.trim());
            peers.versions.push((Side::Centrifuge, version));
        }
        if sides.contains(&Side::Nchan) {
            peers.nginx = Some(find_nginx()?);
            let version = package("libnginx-mod-nchan").await?;
            peers.versions.push((Side::Nchan, version));
        }
        Ok(peers)
    }

    pub(crate) fn describe(&self, side: Side) -> Map<String, Value> {
        let versions = self.versions.iter().filter(|(of, _)| *of == side);
        versions
            .map(|(_, version)| ("version".into(), json!(version)))
            .collect()
    }

    pub(crate) fn centrifuge(&self) -> anyhow::Result<&Path> {
        self.centrifuge
            .as_deref()
            .context("centrifuge was not built")
    }

    pub(crate) fn nginx(&self) -> anyhow::Result<&Path> {
        self.nginx.as_deref().context("nginx was not found")
    }
}

/// Fills nchan's configuration in.
pub(crate) fn nginx_conf(values: &[(&str, &str)]) -> anyhow::Result<String> {
    let path = format!("{SCRIPTS}/nchan/nginx.conf");
    let mut text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    for (name, value) in values.iter().chain([&("modules", MODULES)]) {
        text = text.replace(&format!("{{{name}}}"), value);
    }
    Ok(text)
}

async fn build(folder: &Path) -> anyhow::Result<PathBuf> {
    for package in ["centrifugal/centrifuge", "golang-jwt/jwt"] {
        let sources = Path::new(GOPATH).join("src/github.com").join(package);
        ensure!(
            sources.is_dir(),
            "there is no {}; {}",
            sources.display(),
            missing(CENTRIFUGE, Side::Centrifuge)
        );
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let program = folder.join("server");
    let mut go = Command::new("go");
    go.args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(format!("{SCRIPTS}/centrifuge"))
        .env("GO111MODULE", "off")
        .env("GOPATH", GOPATH)
        .env("GOCACHE", folder.join("cache"))
        // What is installed is what is compared.
        .env("GOTOOLCHAIN", "local")
        .env("GOPROXY", "off");
    output(&mut go)
        .await
        .context(missing(CENTRIFUGE, Side::Centrifuge))?;
    Ok(program)
}

fn find_nginx() -> anyhow::Result<PathBuf> {
    let module = Path::new(MODULES).join("ngx_nchan_module.so");
    let found = ["/usr/sbin/nginx", "/usr/bin/nginx"].map(PathBuf::from);
    match found.into_iter().find(|path| path.exists()) {
        Some(nginx) if module.exists() => Ok(nginx),
        _ => bail!(
            "nginx or its nchan module is missing; {}",
            missing(NCHAN, Side::Nchan)
        ),
    }
}

fn missing(packages: &str, side: Side) -> String {
    let name = side.name();
    format!("on Debian: apt-get install --no-install-recommends {packages}; or --without {name}")
}

/// A Debian package with its version.
async fn package(name: &str) -> anyhow::Result<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${Version}", name]);
    let version = output(&mut query)
        .await
        .unwrap_or_else(|_| "of unknown version".into());
    Ok(format!("{name} {version}"))
}

async fn output(command: &mut Command) -> anyhow::Result<String> {
    let running = command.kill_on_drop(true).output();
    let output = timeout(BUILD, running)
        .await
        .context("a program did not end")??;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
