import Coordination
import Foundation

#if canImport(Glibc)
import Glibc
#endif

/// The files of staff's tokens beside a server or a helper.
enum TokenFiles {
    /// The viewer's token, which is made where there is no file.
    ///
    /// - Parameter path: `viewer_token_file`.
    /// - Returns: The token.
    /// - Throws: ``Failure`` if the file cannot be read or made, or does not hold one token.
    static func viewer(_ path: String) throws -> String {
        let known: Data?
        do throws(CoordinationError) {
            known = try DurableFiles.readIfPresent(path)
        } catch {
            let reason = error.storage.map { StorageFailure.reason($0.code) } ?? error.message
            throw Failure("viewer_token_file \(path) cannot be read: \(reason)")
        }
        guard let known else {
            let token = Secrets.token()
            try keep(token, at: path, setting: "viewer_token_file")
            return token
        }
        let text = String(decoding: known, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        guard text.utf8.count >= 32, text.utf8.allSatisfy({ $0 > 32 && $0 < 127 }) else {
            throw Failure("viewer_token_file \(path) must hold one token of at least 32 printable characters")
        }
        return text
    }

    /// Writes the first administrator's token; one of an earlier server that is there gets another name.
    static func keepFirstAdmin(_ token: String, _ path: String) throws {
        if try DurableFiles.exists(path) { rename(path, path + ".before-\(Int(Date().timeIntervalSince1970))") }
        try keep(token, at: path, setting: "data_dir")
    }

    /// Writes a token to its file, with the setting's name in the error.
    private static func keep(_ token: String, at path: String, setting: String) throws {
        do {
            try DurableFiles.write(Data((token + "\n").utf8), to: path)
        } catch {
            guard let failure = StorageFailure(error) else { throw error }
            let isParent = failure.isMissing
            throw Failure(
                "\(setting): \(path) cannot be made: "
                    + (isParent ? "its directory is not there" : StorageFailure.reason(failure.code)),
                advice: isParent
                    ? "Make the directory, or name another file."
                    : StorageFailure.advice(failure.code).map { "To do: \($0)." }
            )
        }
    }
}
