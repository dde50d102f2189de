//! A request that is refused or fails, told as OpenAI tells it.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::engine::limits::RequestError;

/// Seconds after which a client that was turned away may try again.
const RETRY_AFTER_S: u32 = 1;

/// What is wrong, and with which status that is said.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    status: StatusCode,
    kind: &'static str,
    message: String,
    param: Option<&'static str>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: Error<'a>,
}

#[derive(Serialize)]
struct Error<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'static str>,
    code: u16,
}

impl Failure {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), param: None }
    }

    /// The request cannot be served as it is; `param` is at fault, where one is.
    pub(super) fn bad(message: impl Into<String>, param: Option<&'static str>) -> Self {
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message) }
    }

    pub(super) fn unauthorized() -> Self {
        let message = "the key is missing or another one. Send it as `Authorization: Bearer KEY`";
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", message)
    }

    pub(super) fn unknown_model(asked: &str, served: &str) -> Self {
        let message = format!("there is no model `{asked}` here. Ask for `{served}`");
        Self { param: Some("model"), ..Self::new(StatusCode::NOT_FOUND, "not_found_error", message) }
    }

    pub(super) fn unknown_path(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found_error", format!("there is no `{path}` here"))
    }

    pub(super) fn unknown_method(method: &str, path: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", format!("`{path}` does not understand `{method}`"))
    }

    pub(super) fn too_large(most: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            format!("the body has more than `{most}` bytes. Shorten the prompt"),
        )
    }

    /// So many requests wait already.
    pub(super) fn full(waiting: usize) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", format!("`{waiting}` requests wait already. Try again later"))
    }

    pub(super) fn engine_ended() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", "the engine ended. Start the server again")
    }

    /// As JSON: the body of a response, or an event of a stream.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let error = Error { message: &self.message, r#type: self.kind, param: self.param, code: self.status.as_u16() };
        serde_json::to_vec(&Body { error }).unwrap_or_default()
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        let param = match &error {
            RequestError::EmptyPrompt | RequestError::ContextExceeded { .. } | RequestError::CacheExceeded { .. } => Some("prompt"),
            RequestError::UnknownToken { .. } => Some("prompt"),
            RequestError::NothingToGenerate => Some("max_tokens"),
            RequestError::Sampling { parameter, .. } => Some(*parameter),
        };
        Self::bad(error.to_string(), param)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = Error { message: &self.message, r#type: self.kind, param: self.param, code: self.status.as_u16() };
        let mut response = (self.status, Json(Body { error })).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S.into());
        }
        response
    }
}
