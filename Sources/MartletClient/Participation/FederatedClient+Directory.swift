public import Logging
public import MartletTransport
public import TrainerInterface

extension FederatedClient {
    /// Creates a client that keeps all that it has to keep in one directory: its state, and models under `models`.
    ///
    /// - Parameters:
    ///   - server: The server's base URL.
    ///   - enrollmentToken: Needed until the client has registered.
    ///   - directory: Made where it is missing; one process at a time has it.
    ///   - trainer: Trains on this device's data.
    ///   - transport: How requests reach the server.
    ///   - policy: What the device's owner allows.
    ///   - helper: The key of the helper without whose grant the device does no work.
    ///   - logger: Is told what the client does.
    /// - Throws: `ClientError` where the directory cannot be used, or another process has it.
    public init(
        server: String,
        enrollmentToken: String?,
        directory: String,
        trainer: any LocalTrainer,
        transport: any Transport,
        policy: ClientPrivacyPolicy = .init(),
        helper: HelperKey? = nil,
        logger: Logger? = nil
    ) throws {
        self.init(
            server: server,
            enrollmentToken: enrollmentToken,
            state: try ClientState(directory: directory),
            trainer: trainer,
            transport: transport,
            models: try ModelCache(directory: directory + "/models"),
            policy: policy,
            helper: helper,
            logger: logger
        )
    }

    #if Curl
    /// Creates a client over libcurl that keeps all that it has to keep in one directory.
    public init(
        server: String,
        enrollmentToken: String?,
        directory: String,
        trainer: any LocalTrainer,
        policy: ClientPrivacyPolicy = .init(),
        helper: HelperKey? = nil,
        logger: Logger? = nil
    ) throws {
        try self.init(
            server: server,
            enrollmentToken: enrollmentToken,
            directory: directory,
            trainer: trainer,
            transport: CurlTransport(),
            policy: policy,
            helper: helper,
            logger: logger
        )
    }
    #endif
}
