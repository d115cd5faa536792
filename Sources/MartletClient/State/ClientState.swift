import CLibrary
package import Foundation
import MartletTransport

/// Where a client keeps its credential, its ledger and a finished update, each file whole or absent after any crash.
///
/// The directory is locked for as long as the value, or a client that has it, lives: two processes with one ledger would each
/// forget what the other has spent.
public struct ClientState: Sendable {
    /// The directory.
    public let directory: String
    let files: StateFiles
    let lock: StateLock

    /// Takes a directory, made with mode 0700 where it is missing.
    ///
    /// - Throws: `ClientError` with code `state_locked`, which names the process that has it, `storage` or `disk_full`.
    public init(directory: String) throws {
        try self.init(directory: directory, failpoint: StateFailpoint.reach)
    }

    package init(directory: String, failpoint: @escaping @Sendable () throws -> Void) throws {
        self.directory = directory
        files = StateFiles(directory: directory, failpoint: failpoint)
        try Self.makeDirectory(directory)
        lock = try StateLock.take(directory: directory)
        files.removeTemporaries()
        // A trainer command that outlived a killed client, and the copy of the model that it worked on.
        try TrainerWork.clearIfFree(directory + "/" + Self.trainerDirectory)
    }

    /// Makes a directory, and those above it, for the owner alone.
    static func makeDirectory(_ directory: String) throws {
        var path = directory.hasPrefix("/") ? "/" : ""
        for part in directory.split(separator: "/") {
            path += part + "/"
            if mkdir(path, 0o700) != 0 && errno != EEXIST {
                let code = errno
                var status = stat()
                if stat(path, &status) == 0 { continue }
                throw LocalFailure.error("make", path, code)
            }
        }
        var status = stat()
        guard stat(directory.isEmpty ? "." : directory, &status) == 0 else {
            throw LocalFailure.error("open", directory, errno)
        }
        guard status.st_mode & S_IFMT == S_IFDIR else { throw LocalFailure.error("open", directory, ENOTDIR) }
    }

    /// The path of a directory inside this one, made where it is missing.
    ///
    /// - Throws: `ClientError` with code `storage`; for a link too, which would lead elsewhere.
    package func subdirectory(_ name: String) throws -> String {
        try PlainFile.makeDirectory(directory + "/" + name)
        return directory + "/" + name
    }

    /// Keeps a document of the owner's, whole or not at all.
    ///
    /// - Throws: `ClientError` of this device's files.
    package func keep(_ data: Data, as name: String) throws { try files.write(name, data: data) }

    struct Credential: Codable, Sendable {
        var clientId: String
        var token: String
        /// 2 from the version on that writes an empty ledger before the first credential; absent before that.
        var format: Int?
        /// The generation of this state, as ``AssignmentLog`` has it: it outlives a log that is damaged.
        var generation: Int?

        static let currentFormat = 2
    }

    /// Whether the client has registered, as far as the disk says.
    var hasCredential: Bool { (try? files.exists(.credential)) ?? true }

    /// Where ``ExternalTrainer`` works for the command line's client.
    static let trainerDirectory = "trainer"
    static let updateFile = "update.safetensors"
    static let residualFile = "residual.next"

    /// Forgets the registration and what hangs on it, so that the client registers as a new one; the device's ledger stays,
    /// since what it has spent stays spent, and so do the heads of servers' ledgers, one for each population.
    ///
    /// - Parameter policy: What the device's owner allows.
    /// - Throws: `ClientError` with code `registration_refused` where the owner's policy forbids to register again and the device has taken
    ///   part; or of this device's files.
    public func forgetRegistration(by policy: ClientPrivacyPolicy = .init()) throws {
        try requireRegistration(by: policy)
        try LedgerHeadFile(files: files).setAside()
        for name in [
            StateFile.delivery.name, Self.updateFile, Self.residualFile, ControlVariateFile.unsent,
            StateFile.assignments.name, StateFile.registration.name, StateFile.credential.name,
        ] {
            try files.remove(name)
        }
        try HelperFiles(files: files).forgetServer()
    }

    /// Refuses to register a device that has taken part, where its owner's policy says so: the server would take it for a client that
    /// has spent nothing.
    ///
    /// - Throws: `ClientError` with code `registration_refused`, or of this device's files.
    func requireRegistration(by policy: ClientPrivacyPolicy) throws {
        guard !policy.mayRegisterAgain, try ledger().hasTakenPart else { return }
        throw ClientError(
            code: "registration_refused",
            message:
                "the owner's policy does not let this device register again (may_register_again): its own ledger in "
                + "\(directory) says that it has taken part, and the server would take it for a client that has spent nothing"
        )
    }

    /// Whether the device has registered: from then on a server that hears nothing of it hears something.
    package var isRegistered: Bool { hasCredential }

    /// Reads the credential, and sees to it that a ledger goes with it.
    ///
    /// The ledger is written empty before the credential, so that one that is missing beside it was lost, and is no empty one.
    ///
    /// - Parameter notify: Receives a sentence for the owner.
    /// - Returns: The credential; `nil` before the client has registered.
    /// - Throws: `ClientError` with code `state_damaged`, or of this device's files.
    func credential(notify: (String) -> Void) throws -> Credential? {
        guard var credential = try readCredential() else { return nil }
        guard (credential.format ?? 1) < Credential.currentFormat else {
            guard try files.exists(.ledger) else {
                throw ClientError(
                    code: "state_damaged",
                    message:
                        "\(files.path(StateFile.ledger.name)) is missing: the device's own record of what it has spent. "
                        + "Restore it, or take part as a new client in an empty directory"
                )
            }
            return credential
        }
        if try !files.exists(.ledger) {
            try files.write(.ledger, ClientLedger())
            notify(
                "the state in \(directory) is of an older version and has no ledger: the device's own record begins empty now"
            )
        }
        credential.format = Credential.currentFormat
        try files.write(.credential, credential)
        return credential
    }

    private func readCredential() throws -> Credential? {
        do { return try files.read(.credential) } catch {
            guard var damage = error as? ClientError, damage.isStateDamaged else { throw error }
            damage.message +=
                ". Restore it, or register as a new client, which keeps the device's ledger: martlet client --register-again "
                + "with an enrollment token"
            throw damage
        }
    }

    /// The device's ledger.
    ///
    /// - Throws: `ClientError` with code `state_damaged`: what cannot be read permits nothing.
    func ledger() throws -> ClientLedger {
        do { return try files.read(.ledger) ?? ClientLedger() } catch {
            guard (error as? ClientError)?.isStateDamaged == true else { throw error }
            throw ClientError(
                code: "state_damaged",
                message:
                    "\(files.path(StateFile.ledger.name)) cannot be read: the device's own record of what it has spent. "
                    + "Restore it, or take part as a new client in an empty directory"
            )
        }
    }

    /// Puts a damaged file out of the way, for its owner to look at.
    ///
    /// - Returns: Its new name.
    func setAside(_ name: String, at time: Date) throws -> String {
        let target = "\(name).damaged-\(Int(max(0, min(1e11, time.timeIntervalSince1970))))"
        try files.move(name, to: target)
        return target
    }
}
