import Crypto
package import Foundation

/// The helper's key of one session; it opens the seeds of that session's updates only.
///
/// HPKE (RFC 9180) with X-Wing (ML-KEM-768 and X25519), HKDF-SHA-256 and AES-256-GCM. The helper deletes it when the session ends.
package struct SessionKey: Sendable {
    package static let publicByteCount = 1216
    static let suite = HPKE.Ciphersuite.XWingMLKEM768X25519_SHA256_AES_GCM_256

    private let key: XWingMLKEM768X25519.PrivateKey

    /// A key from the system's random source.
    package init() throws { key = try XWingMLKEM768X25519.PrivateKey.generate() }

    /// Reads a key from the bytes of ``stored``.
    package init(stored: Data) throws {
        key = try XWingMLKEM768X25519.PrivateKey(seedRepresentation: stored, publicKey: nil)
    }

    /// The bytes to store: the seed of the key, a secret.
    package var stored: Data { key.seedRepresentation }

    package var publicKey: [UInt8] { Array(key.publicKey.rawRepresentation) }

    /// Opens a seed; `nil` if it was sealed for another session, pseudonym or key, or was changed.
    ///
    /// The KEM rejects implicitly: every error shows as a wrong authentication tag.
    package func open(_ sealed: SealedSeed, session: [UInt8], pseudonym: [UInt8]) -> Data? {
        let recipient = try? HPKE.Recipient(
            privateKey: key,
            ciphersuite: Self.suite,
            info: SealedSeed.info(session: session, pseudonym: pseudonym),
            encapsulatedKey: Data(sealed.encapsulatedKey)
        )
        guard var recipient, let seed = try? recipient.open(Data(sealed.box)),
            seed.count == MaskStream.seedByteCount
        else { return nil }
        return seed
    }
}

/// A seed sealed to the helper's key of one session: 1,120 bytes of encapsulated key, then 48 of ciphertext and tag.
package struct SealedSeed: Equatable, Sendable {
    package static let encapsulatedByteCount = 1120
    package static let boxByteCount = 48
    package static let byteCount = encapsulatedByteCount + boxByteCount

    package var bytes: [UInt8]

    var encapsulatedKey: ArraySlice<UInt8> { bytes.prefix(Self.encapsulatedByteCount) }
    var box: ArraySlice<UInt8> { bytes.suffix(Self.boxByteCount) }

    /// - Throws: ``SecureAggregationError`` `invalid_list` if there are not 1,168 bytes.
    package init(_ bytes: [UInt8]) throws(SecureAggregationError) {
        guard bytes.count == Self.byteCount else {
            throw SecureAggregationError(.invalidList, "a sealed seed has \(Self.byteCount) bytes")
        }
        self.bytes = bytes
    }

    /// Seals a seed to the session's key.
    ///
    /// `info` binds session and pseudonym; there is no associated data.
    package static func seal(
        _ seed: Data,
        for document: SessionDocument,
        pseudonym: [UInt8]
    ) throws -> SealedSeed {
        var sender = try HPKE.Sender(
            recipientKey: XWingMLKEM768X25519.PublicKey(rawRepresentation: document.publicKey),
            ciphersuite: SessionKey.suite,
            info: info(session: document.session, pseudonym: pseudonym)
        )
        let box = try sender.seal(seed)
        return try SealedSeed(Array(sender.encapsulatedKey) + Array(box))
    }

    static func info(session: [UInt8], pseudonym: [UInt8]) -> Data {
        Data(Array("martlet-helper/1 seal".utf8) + session + pseudonym)
    }
}
