import Foundation

/// How much of what a server sends, or makes a device keep, it takes.
public struct ClientLimits: Sendable, Equatable {
    /// Bytes of one model's file, at most; a model with more parameters than fit in them as F32 is refused too.
    public var modelBytes: Int
    /// Bytes of one document that a model needs, such as a tokeniser, at most.
    public var documentBytes: Int
    /// Runs for which something is kept between rounds, at most: what sparse updates left out, and control variates.
    public var keptRuns: Int
    /// Bytes of all that is kept for runs, at most; what was written longest ago is removed first.
    public var keptBytes: Int
    /// Bytes of memory that training and evaluating a built-in model may take, at most.
    public var trainingBytes: Int

    /// Half of the memory that there is.
    public static var standardTrainingBytes: Int { Int(clamping: ProcessInfo.processInfo.physicalMemory / 2) }

    /// Creates limits; the defaults are 4 GiB and 32 MiB, 16 runs and 8 GiB, and half of the memory.
    public init(
        modelBytes: Int = 4 << 30,
        documentBytes: Int = 32 << 20,
        keptRuns: Int = 16,
        keptBytes: Int = 8 << 30,
        trainingBytes: Int = Self.standardTrainingBytes
    ) {
        self.modelBytes = max(8, modelBytes)
        self.documentBytes = max(2, documentBytes)
        self.keptRuns = max(1, keptRuns)
        self.keptBytes = max(0, keptBytes)
        self.trainingBytes = max(0, trainingBytes)
    }
}
