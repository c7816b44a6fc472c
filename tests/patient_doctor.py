"""``python -m flows.doctor`` that has all the time which its checks take on a busy machine.

``python -m tests.patient_doctor SECONDS ARGUMENTS...`` waits for so long for each answer of a server.
"""

import sys

from flows import doctor, doctor_probes
from tests.commands import HANG_S

if __name__ == "__main__":
    doctor.PATIENCE_S, doctor_probes.TIMEOUT_S = HANG_S, float(sys.argv[1])
    sys.exit(doctor.doctor_command(sys.argv[2:]))
