"""What native libraries need around them: their failures as errors of Pilotlight's tree, and processes with limits."""
