import LocalTraining
import Testing

/// Which of OpenBLAS's kernels run, and what is said of them.
struct BLASCoreTests {
    private static let cores: [(String, String?, BLASCore.Fit)] = [
        ("Zen", "Haswell", BLASCore.Fit.fits), ("Haswell", "Haswell", .fits), ("Haswell", "SkylakeX", .fits),
        ("SkylakeX", "SkylakeX", .fits), ("Sandybridge", "Haswell", .fits), ("Prescott", nil, .fits),
        ("Prescott", "Haswell", .isSlow), ("Nehalem", "SkylakeX", .isSlow), ("SkylakeX", "Haswell", .isBeyond),
        ("SapphireRapids", "Haswell", .isBeyond), ("SkylakeX", nil, .fits),
    ]

    @Test(arguments: cores)
    func aCoreIsJudgedByTheProcessor(_ core: String, _ best: String?, _ fit: BLASCore.Fit) {
        #expect(BLASCore.Fit(core: core, best: best) == fit)
    }

    @Test func theSentenceNamesTheCoreThatRuns() {
        let core = BLASCore.choice.core
        #expect(BLASCore.sentence.contains(core ?? "is not OpenBLAS"), "\(BLASCore.sentence)")
    }
}
