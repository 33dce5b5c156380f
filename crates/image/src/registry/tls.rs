use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{Context, Error, Result};

/// How TLS is spoken with a host: by the system's authorities and those of the host's own directory. Without
/// `verify` any certificate will do.
///
/// # Errors
/// A file is not what its name says, or there is no authority at all.
pub(super) fn config(directories: &[PathBuf], host: &str, verify: bool) -> Result<ClientConfig> {
    let wrong = |error: rustls::Error| Error::Registry(format!("prepare TLS for {host}: {error}"));
    let mut own = OwnCertificates::default();
    for directory in directories {
        own.read(&directory.join(host))?;
    }
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = if verify {
        Arc::new(Trust::new(own.authorities, provider.clone()).map_err(wrong)?)
    } else {
        Arc::new(Anybody(provider.clone()))
    };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(wrong)?.dangerous().with_custom_certificate_verifier(verifier);
    match own.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(wrong),
    }
}

/// What a registry's directory holds.
#[derive(Default)]
struct OwnCertificates {
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl OwnCertificates {
    fn read(&mut self, directory: &Path) -> Result<()> {
        let entries = match std::fs::read_dir(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.context(|| format!("read {}", directory.display()))?,
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => self.authorities.extend(certificates(&path)?),
                Some("cert") => self.identity = Some((certificates(&path)?, key_of(&path)?)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = std::fs::read(path).context(|| format!("read {}", path.display()))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    certificates.map_err(|error| Error::invalid(format!("{}: {error}", path.display())))
}

/// The key of a client's certificate, which stands beside it.
fn key_of(certificate: &Path) -> Result<PrivateKeyDer<'static>> {
    let path = certificate.with_extension("key");
    if !path.exists() {
        return Err(Error::invalid(format!(
            "missing key {} for client certificate {}. CA certificates must use the extension .crt",
            path.display(),
            certificate.display()
        )));
    }
    let pem = std::fs::read(&path).context(|| format!("read {}", path.display()))?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| Error::invalid(format!("{}: {error}", path.display())))
}

/// Trusts the system's authorities and a registry's own. A certificate that is itself among the latter is good
/// too, though it says that it is an authority's: so people make them for their registries, and Docker takes them.
#[derive(Debug)]
struct Trust {
    verifier: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl Trust {
    fn new(own: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for certificate in &own {
            roots.add(certificate.clone())?;
        }
        let system = rustls_native_certs::load_native_certs();
        for error in system.errors {
            tracing::warn!(%error, "cannot read an authority's certificate");
        }
        // Old authorities may have certificates that nothing reads any more.
        roots.add_parsable_certificates(system.certs);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build();
        let verifier = verifier.map_err(|_| {
            rustls::Error::General("the system has no authorities' certificates (ca-certificates)".to_owned())
        })?;
        Ok(Self { verifier, own })
    }
}

/// Whether nothing is wrong but that an authority's certificate is a server's; that is looked at after the time in
/// which it is valid.
fn is_own_authority(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            other.0.to_string() == "CaUsedAsEndEntity"
        }
        _ => false,
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.verifier.verify_server_cert(certificate, chain, name, ocsp, now) {
            Err(error) if is_own_authority(&error) && self.own.contains(certificate) => {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Takes every certificate, for insecure registries; whoever shows it must still have its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    /// Makes a certificate as people make them for their registries.
    fn make(directory: &Path, file: &str) -> PathBuf {
        let (certificate, key) = (directory.join(file), directory.join(file).with_extension("key"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "30", "-subj", "/CN=r.example", "-addext", "subjectAltName=DNS:r.example"])
            .arg("-keyout")
            .arg(key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        certificate
    }

    #[test]
    fn a_registrys_own_certificate_is_its_authority() {
        let home = tempfile::tempdir().unwrap();
        let known = certificates(&make(home.path(), "known.crt")).unwrap().remove(0);
        let stranger = certificates(&make(home.path(), "stranger.crt")).unwrap().remove(0);
        let trust = Trust::new(vec![known.clone()], Arc::new(ring::default_provider())).unwrap();
        let check = |certificate: &CertificateDer<'_>, name: &str, later: u64| {
            let now = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + later));
            let name = ServerName::try_from(name.to_owned()).unwrap();
            trust.verify_server_cert(certificate, &[], &name, &[], now).map(drop).map_err(|e| e.to_string())
        };
        check(&known, "r.example", 0).unwrap();
        assert!(check(&known, "other.example", 0).unwrap_err().contains("not valid for name"));
        assert!(check(&known, "r.example", 31 * 86_400).unwrap_err().contains("expired"));
        assert!(check(&stranger, "r.example", 0).is_err());
    }

    #[test]
    fn a_clients_certificate_needs_its_key() {
        let home = tempfile::tempdir().unwrap();
        let host = home.path().join("r.example:5000");
        std::fs::create_dir(&host).unwrap();
        let certificate = make(&host, "client.cert");
        let read = || config(&[home.path().to_owned()], "r.example:5000", false);
        assert!(read().unwrap().client_auth_cert_resolver.has_certs());
        std::fs::remove_file(certificate.with_extension("key")).unwrap();
        assert!(read().unwrap_err().to_string().starts_with("missing key"), "a key belongs to it");
        std::fs::write(certificate.with_extension("key"), "nonsense").unwrap();
        assert!(read().is_err());
    }
}
