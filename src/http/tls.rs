//! Whose certificates are believed, and what is spoken inside.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Whom to believe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// The authorities of this machine, or Mozilla's where it has none.
    #[default]
    System,
    /// Those of a PEM file alone.
    File(PathBuf),
    /// Anybody: for servers under test with certificates of their own making.
    Anybody,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file is not one.
    #[error("cannot read certificates from `{file}`: {problem}. Give a PEM file with the authority's certificate")]
    Pem {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The library refuses.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// Why a connection is not encrypted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SessionError {
    /// Nobody who is believed vouches for it.
    #[error("its certificate is not believed ({0}). Name its authority with `--ca-file FILE`, or believe any with `--insecure`")]
    Untrusted(rustls::Error),
    /// There is no agreement, or nobody who could agree.
    #[error("it does not agree on encryption ({0}). Does it speak https?")]
    NoAgreement(rustls::Error),
    /// What came later is not what was agreed on.
    #[error("what came cannot be decrypted: {0}")]
    Broken(rustls::Error),
}

impl SessionError {
    /// What `error` means, while hands are shaken or after it.
    #[must_use]
    pub fn of(error: rustls::Error, handshaking: bool) -> Self {
        match error {
            rustls::Error::InvalidCertificate(_) => Self::Untrusted(error),
            _ if handshaking => Self::NoAgreement(error),
            _ => Self::Broken(error),
        }
    }
}

/// What a connection is made with; `protocols` are offered in this order, such as `h2`.
///
/// # Errors
/// When the certificates cannot be read.
pub fn config(trust: &Trust, protocols: &[&str]) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut config = match trust {
        Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(Believing(provider))).with_no_client_auth(),
        _ => builder.with_root_certificates(roots(trust)?).with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

fn roots(trust: &Trust) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Trust::File(file) = trust {
        let bad = |problem: String| TlsError::Pem { file: file.clone(), problem };
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| bad(error.to_string()))? {
            roots.add(certificate.map_err(|error| bad(error.to_string()))?)?;
        }
        return if roots.is_empty() { Err(bad("there is none in it".to_owned())) } else { Ok(roots) };
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}

/// Believes every certificate; the signatures must still fit it.
#[derive(Debug)]
struct Believing(Arc<CryptoProvider>);

impl ServerCertVerifier for Believing {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
