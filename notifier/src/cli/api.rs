//! The HTTP API of a notifier that runs, for commands that ask it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bellhop_common::config::{ConfigFlags, Secret, Sources};
use bellhop_common::tls;
use bellhop_notifier::auth::{Draft, mint};
use bellhop_notifier::{AuthMode, NotifierConfig};
use clap::Args;
use jiff::Timestamp;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// The largest answer, in bytes.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// How long a token is good that is made for one request.
const TOKEN_FOR: Duration = Duration::from_mins(1);

/// Which notifier, and by what right. The token is no argument: others can see those.
#[derive(Debug, Args)]
pub(super) struct ApiFlags {
    /// Where the notifier answers [default: `BELLHOP_URL`, or else the configured http.listen]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A file with an administrator's token [default: the token in `BELLHOP_TOKEN`, or else one for
    /// a minute, signed with the configured secret]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFlags,
}

/// The API of one notifier.
pub(super) struct Api {
    client: Client,
    base: String,
    token: Secret,
    /// Where the token is from, for who has to mend it.
    origin: String,
}

/// What the notifier says of a request that it refuses.
#[derive(Deserialize)]
struct Refusal {
    error: Reason,
}

#[derive(Deserialize)]
struct Reason {
    code: String,
    message: String,
}

impl ApiFlags {
    pub(super) fn open(self) -> anyhow::Result<Api> {
        let config: NotifierConfig = Sources::of_process(&self.config).load()?;
        let base = match self.url.or_else(|| variable("BELLHOP_URL")) {
            Some(url) => address(&url)?,
            None => local(&config),
        };
        let (token, origin) = token(self.token_file, &config)?;
        tls::install_provider();
        let client = Client::builder()
            .user_agent(concat!("bellhop-notifier/", env!("CARGO_PKG_VERSION")))
            // The token is for whom the command names, and for nobody on the way.
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(PATIENCE)
            .build()
            .context("cannot set up an HTTP client")?;
        Ok(Api {
            client,
            base,
            token,
            origin,
        })
    }
}

/// What the environment says, if anything.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn address(url: &str) -> anyhow::Result<String> {
    let parsed = Url::parse(url).ok();
    let fits = parsed.filter(|url| {
        let has_user = !url.username().is_empty() || url.password().is_some();
        let is_plain = url.query().is_none() && url.fragment().is_none() && !has_user;
        matches!(url.scheme(), "http" | "https") && is_plain
    });
    // Not quoted: it may have a password in it.
    let fits = fits.context(
        "--url (or BELLHOP_URL) must be an address such as https://live.example.org, without a \
         user, ? or #",
    )?;
    Ok(fits.as_str().trim_end_matches('/').to_owned())
}

/// Of the notifier that runs here with this configuration.
fn local(config: &NotifierConfig) -> String {
    let mut listen = config.http.listen;
    if listen.ip().is_unspecified() {
        listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{listen}")
}

/// The token, and where it is from.
fn token(file: Option<PathBuf>, config: &NotifierConfig) -> anyhow::Result<(Secret, String)> {
    let (token, origin) = if let Some(path) = file {
        (Secret::from_file(&path)?, path.display().to_string())
    } else if let Some(token) = variable("BELLHOP_TOKEN") {
        (Secret::new(token), "BELLHOP_TOKEN".to_owned())
    } else {
        let name = variable("USER").unwrap_or_else(|| "notifier".into());
        (own_token(&name, config)?, "the configuration".to_owned())
    };
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    ensure!(
        is_token(token.expose()),
        "{origin}: there must be a token in it and nothing else"
    );
    Ok((token, origin))
}

/// Whoever can read the secret may sign what he likes.
fn own_token(name: &str, config: &NotifierConfig) -> anyhow::Result<Secret> {
    if config.auth.mode == AuthMode::None {
        // There the bearer's word is its name.
        return Ok(Secret::new(name));
    }
    let draft = Draft {
        scope: Some("admin"),
        ..Draft::new(name, Timestamp::now(), TOKEN_FOR)
    };
    let token = mint(&config.auth, &draft).context(
        "there is no token: put an administrator's into BELLHOP_TOKEN, or into a file for \
         --token-file",
    )?;
    Ok(Secret::new(token))
}

/// An answer as what it means.
pub(super) fn read<T: DeserializeOwned>(answer: Value) -> anyhow::Result<T> {
    serde_json::from_value(answer).context("the notifier is of another version than this command")
}

impl Api {
    /// Asks, and answers with what the notifier says.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let mut request = request.bearer_auth(self.token.expose());
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.away(error))?;
        let status = response.status();
        let body = self.body(response).await?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| self.foreign(status));
        }
        Err(self.refused(status, &body))
    }

    fn away(&self, error: reqwest::Error) -> anyhow::Error {
        let what = format!(
            "no notifier answers at {}; --url or BELLHOP_URL names another",
            self.base
        );
        anyhow::Error::new(error.without_url()).context(what)
    }

    async fn body(&self, mut response: Response) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.away(error))? {
            if body.len() + chunk.len() > ANSWER_MAX {
                bail!("{} answers with more than {ANSWER_MAX} bytes", self.base);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn foreign(&self, status: StatusCode) -> anyhow::Error {
        let base = &self.base;
        anyhow::anyhow!(
            "{base} answers {status}, and not as a notifier does; --url or BELLHOP_URL names another"
        )
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> anyhow::Error {
        let Ok(Refusal { error }) = serde_json::from_slice(body) else {
            return self.foreign(status);
        };
        let Reason { code, message } = error;
        let origin = &self.origin;
        match status {
            StatusCode::UNAUTHORIZED => anyhow::anyhow!(
                "the notifier does not take the token of {origin}: {message} ({code}); `notifier \
                 token --user NAME --scope admin` makes one where the secret is, and --token-file \
                 or BELLHOP_TOKEN gives it"
            ),
            StatusCode::FORBIDDEN => {
                anyhow::anyhow!("the token of {origin} does not allow this: {message} ({code})")
            }
            _ => anyhow::anyhow!("{message} ({code})"),
        }
    }
}
