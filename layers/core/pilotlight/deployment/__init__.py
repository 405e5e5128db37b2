"""Deploy the stack to an AWS account by SAM and boto3, and what its owner does with it afterwards.

`package` needs the standard library alone, for `make package`; what talks to AWS imports boto3 when it is used.
"""
