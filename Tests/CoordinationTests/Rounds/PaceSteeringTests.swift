import Testing
import WireFormat

@testable import Coordination

/// When clients that found no work are asked to come again.
struct PaceSteeringTests {
    @Test func aSmallPopulationIsBroughtTogetherWhenThereIsWork() {
        let window = PaceSteering.window(secondsUntilWork: 120, population: 40, wanted: 10)
        #expect(window.minS == 120 && window.maxS == 124)
        #expect(PaceSteering.window(secondsUntilWork: 120, population: 40, wanted: 10, jitter: 1).maxS == 121)
        // A large one that a round wants most of is small to that round.
        #expect(PaceSteering.window(secondsUntilWork: 5, population: 4000, wanted: 1000).maxS == 9)
    }

    @Test func aLargePopulationIsSpreadSoThatTheServerSeesItsRate() {
        for population in [51, 5000, 100_000] {
            let window = PaceSteering.window(secondsUntilWork: 10, population: population, wanted: 10)
            let width = window.maxS - window.minS
            #expect(window.minS == 10)
            // Uniform over the window, at most fifty a second, or as narrow as the jitter allows.
            #expect(Double(population) / width <= PaceSteering.targetRate + 1e-9)
        }
        let wide = PaceSteering.window(secondsUntilWork: 10, population: 100_000, wanted: 10)
        #expect(abs(wide.maxS - 2010) < 1e-9)
    }

    @Test func waitsHaveEnds() {
        let now = PaceSteering.window(secondsUntilWork: -5, population: 1, wanted: 1)
        #expect(now.minS == 0.1 && now.maxS > now.minS)
        let never = PaceSteering.window(secondsUntilWork: 1e9, population: 100_000_000, wanted: 1)
        #expect(never.minS == PaceSteering.longest && never.maxS == 2 * PaceSteering.longest)
    }
}
