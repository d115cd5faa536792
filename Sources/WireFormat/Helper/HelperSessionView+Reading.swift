package import StrictJSON

extension HelperSessionView {
    /// The most characters of a document in base64; one with names of 255 bytes has 2,200 bytes.
    private static let documentLengthLimit = 5464

    /// Reads what a helper answers.
    ///
    /// Only what is used is read; the document says the rest.
    ///
    /// - Throws: ``DocumentError`` naming every field that does not fit.
    package static func read(_ document: JSONValue) throws(DocumentError) -> Self {
        try FieldReader.readAnswer(document) { fields -> Self? in
            let session = fields.checked("session", as: ContentHash.self)
            let state = fields.word("state", as: HelperSessionState.self)
            let purpose = fields.word("purpose", as: HelperPurpose.self)
            return session.flatMap { session in
                state.flatMap { state in
                    purpose.map { purpose in
                        Self(
                            session: session.text,
                            state: state,
                            domain: fields.string("domain", lengthLimit: 255),
                            server: fields.string("server", lengthLimit: 255),
                            purpose: purpose,
                            run: fields.string("run", lengthLimit: 255),
                            round: fields.integer("round", in: 1...Int(UInt32.max)),
                            attempt: fields.integer("attempt", in: 1...Int(UInt32.max)),
                            document: fields.string("document", lengthLimit: documentLengthLimit),
                            grant: fields.string("grant", lengthLimit: 88),
                            expiresAt: fields.string("expires_at", lengthLimit: 64),
                            listSha256: fields.optionalChecked("list_sha256", as: ContentHash.self)?.text,
                            sumSha256: fields.optionalChecked("sum_sha256", as: ContentHash.self)?.text
                        )
                    }
                }
            }
        }
    }
}
